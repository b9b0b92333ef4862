"""From a request's bytes to a reply's: checked against the interface, dispatched, every end one answer.

A request that carries anything the interface does not name, or of another type, is refused. A reply that does is a
bug, and answered as one.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from typing import Any

from labshell import __version__
from labshell.daemon.calls import Answer, Call, error_reply
from labshell.errors import LabshellError
from labshell.operations.steps import Progress
from labshell.wire import description, protocol

log = logging.getLogger(__name__)
STANDARD = "org.varlink.service"  # what every service answers about itself


class Refused(Exception):
    """A request that the interface does not describe: an error of org.varlink.service, with its one value."""

    def __init__(self, name: str, field: str, value: str) -> None:
        super().__init__(name, value)
        self.reply = {"error": f"{STANDARD}.{name}", "parameters": {field: value}}


class Service:
    """One socket's interface: turns request bytes into reply bytes.

    `handler` has a method for each of the interface's; it takes the call and the parameters in their order.
    """

    def __init__(self, interface: str, handler: object) -> None:
        self._name = interface
        self._interfaces = {name: description.load(name) for name in (STANDARD, interface)}
        self._handlers = {STANDARD: _About(self._interfaces), interface: handler}

    def answer(self, message: bytes, call: Call) -> Iterator[bytes]:
        """The replies to one request. Whatever goes wrong becomes one error reply."""
        caller = call.caller
        began, method = time.monotonic(), None
        try:
            request = _decoded(message)
            method = request["method"]
            with call.afterwards:
                yield from map(protocol.encode, self._replies(request, call))
            milliseconds = round((time.monotonic() - began) * 1000)
            log.info("request", extra={"method": method, "uid": caller.uid, "user": caller.name, "ms": milliseconds})
        except Refused as error:
            log.warning("refused request", extra={"uid": caller.uid, "why": str(error)[:200]})
            yield protocol.encode(error.reply)
        except LabshellError as error:
            log.info(
                "refused",
                extra={"method": method, "uid": caller.uid, "id": error.id, "why": str(error)},
                exc_info=error.__cause__,
            )
            yield error_reply(error, to_root=self._name == protocol.ADMIN)
        except Exception:  # the boundary: a bug in one request must not end the daemon
            reference = secrets.token_hex(4)
            log.exception("bug", extra={"method": method, "uid": caller.uid, "reference": reference})
            bug = LabshellError(
                "bug-in-daemon",
                "Something went wrong inside labshell; please give the administrator the reference {reference}.",
                reference=reference,
            )
            yield error_reply(bug, to_root=self._name == protocol.ADMIN)

    def _replies(self, request: dict[str, Any], call: Call) -> Iterator[dict[str, Any]]:
        """The replies of a request's method, once every parameter has exactly the type that the interface says."""
        name, _, method_name = request["method"].rpartition(".")
        interface = self._interfaces.get(name)
        if interface is None:
            raise Refused("InterfaceNotFound", "interface", name)
        method = interface.methods.get(method_name)
        if method is None:
            raise Refused("MethodNotFound", "method", method_name)
        parameters, call.wants_more = request["parameters"], request.get("more", False)
        misfit = interface.misfit(method.takes, parameters)
        if misfit is not None:
            raise Refused("InvalidParameter", "parameter", misfit)
        act = getattr(self._handlers[name], method_name)
        for reply in _messages(act(call, *map(parameters.get, method.takes.fields)), call):
            misfit = interface.misfit(method.answers, reply["parameters"])
            if misfit is not None:
                raise TypeError(f"{method_name} answers with a wrong {misfit}")
            # The login shell's --json has never had what is unknown, labshell-admin's has it as null.
            yield reply if name == protocol.ADMIN else _without_null(reply)


class _About:
    """org.varlink.service."""

    def __init__(self, interfaces: dict[str, description.Interface]) -> None:
        self._interfaces = interfaces

    def GetInfo(self, _: Call) -> Answer:  # noqa: N802 - Varlink's name
        yield from ()
        return {"vendor": "labshell", "product": "labshelld", "version": __version__, "url": "",
                "interfaces": [*self._interfaces]}  # fmt: skip

    def GetInterfaceDescription(self, _: Call, interface: str) -> Answer:  # noqa: N802 - the same
        yield from ()
        if interface not in self._interfaces:
            raise Refused("InterfaceNotFound", "interface", interface)
        return {"description": self._interfaces[interface].text}


def _decoded(message: bytes) -> dict[str, Any]:
    try:
        return protocol.decode_request(message)
    except ValueError as error:
        raise Refused("InvalidParameter", "parameter", "message") from error


def _messages(answer: Answer, call: Call) -> Iterator[dict[str, Any]]:
    """What a method yields and returns, as replies; progress only to a caller who wants more than one."""
    while True:
        try:
            step = next(answer)
        except StopIteration as end:
            yield {"parameters": end.value, "continues": False}
            return
        if not isinstance(step, Progress):
            yield {"parameters": step, "continues": True}
        elif call.wants_more:
            yield {"parameters": {"progress": step.message}, "continues": True}


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return value
