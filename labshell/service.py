"""The daemon's two Varlink interfaces: checked parameters in, a verb's answers or one error out.

Who the caller is comes with the connection and is never a parameter; a request that carries anything the
interface does not name is refused.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import varlink
import varlink.scanner

from labshell import __version__, keys, policy, protocol
from labshell.config import GROUP
from labshell.errors import LabshellError
from labshell.gateway import Gateway, Steps
from labshell.policy import Caller
from labshell.users import NewUser, Users

log = logging.getLogger(__name__)
BASIC_TYPES = (bool, int, float, str)


class Service:
    """One socket's interface: turns request bytes into reply bytes."""

    def __init__(self, interface: str, handler: object) -> None:
        self._varlink = varlink.Service(
            vendor="labshell", product="labshelld", version=__version__, interface_dir=str(Path(__file__).parent)
        )
        self._varlink.interface(interface)(lambda: handler)

    def answer(self, message: bytes, caller: Caller) -> Iterator[bytes]:
        """The replies to one request. Whatever goes wrong becomes one error reply."""
        method = None
        try:
            request = protocol.decode_request(message)
            method = request["method"]
            self._check(request)
            encoded = json.dumps(request).encode()
            for reply in self._varlink.handle(encoded, _request=caller):
                if reply is not None:
                    yield reply + b"\0"
        except (ValueError, RecursionError) as error:
            log.warning("refused request", extra={"uid": caller.uid, "why": str(error)[:200]})
            yield protocol.encode(
                {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": "message"}}
            )
        except varlink.VarlinkError as error:
            yield protocol.encode(error.as_dict())
        except LabshellError as error:
            log.info(
                "refused", extra={"method": method, "uid": caller.uid, "why": str(error)}, exc_info=error.__cause__
            )
            values = {"sentence": error.sentence, "values": error.values}
            yield protocol.encode({"error": f"{protocol.GATEWAY}.{error.name}", "parameters": values})
        except Exception:  # the boundary: a bug in one request must not end the daemon
            reference = secrets.token_hex(4)
            log.exception("bug", extra={"method": method, "uid": caller.uid, "reference": reference})
            values = {
                "sentence": "Something went wrong inside labshell; please give the administrator the "
                "reference {reference}.",
                "values": {"reference": reference},
            }
            yield protocol.encode({"error": f"{protocol.GATEWAY}.Failed", "parameters": values})

    def _check(self, request: dict[str, Any]) -> None:
        """Every parameter is there, is known and has exactly the type that the interface says."""
        interface_name, _, method_name = request["method"].rpartition(".")
        interface = self._varlink.interfaces.get(interface_name)
        if interface is None:
            raise varlink.InterfaceNotFound(interface_name)
        method = interface.get_method(method_name)
        _check_value(interface, method.in_type, request["parameters"], "")


def _check_value(interface: Any, kind: Any, value: Any, path: str) -> None:
    """varlink's own check takes true for 1 and rounds fractions; this one does not."""
    scanner = varlink.scanner
    if isinstance(kind, scanner._CustomType):
        kind = interface.members[kind.name].type
    if isinstance(kind, scanner._Maybe):
        if value is not None:
            _check_value(interface, kind.element_type, value, path)
    elif isinstance(kind, scanner._Array) and type(value) is list:
        for item in value:
            _check_value(interface, kind.element_type, item, path)
    elif isinstance(kind, scanner._Dict) and type(value) is dict:
        for item in value.values():
            _check_value(interface, kind.element_type, item, path)
    elif isinstance(kind, scanner._Struct) and type(value) is dict:
        for name in value.keys() | kind.fields.keys():
            if name not in kind.fields:
                raise varlink.InvalidParameter(name)
            _check_value(interface, kind.fields[name], value.get(name), name)
    elif type(kind) not in BASIC_TYPES or type(value) is not type(kind):
        raise varlink.InvalidParameter(path)


def _answers(steps: Steps[Any], name: str, *, more: bool) -> Iterator[dict[str, Any]]:
    """A verb's steps as replies: progress if the caller wants more than one, then the answer as `name`."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            yield {"_continues": False, name: stop.value}
            return
        if more:
            yield {"_continues": True, "progress": progress._asdict()}


def _at_once(answer: Callable[[], Any]) -> Steps[Any]:
    """A verb without steps in the form of one with."""
    yield from ()
    return answer()


class GatewayInterface:
    """org.labshell.Gateway: every method acts on the caller's own container."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def Status(self, _more: bool = False, _request: Caller | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request)
        return self._reply(_at_once(lambda: self._gateway.status(caller.name, caller.uid)), _more)

    def Start(self, _more: bool = False, _request: Caller | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request)
        return self._reply(self._gateway.start(caller.name, caller.uid), _more)

    def Stop(self, force: bool, _more: bool = False, _request: Caller | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request)
        return self._reply(self._gateway.stop(caller.name, caller.uid, force=force), _more)

    def Restart(self, force: bool, _more: bool = False, _request: Caller | None = None) -> Iterator[dict[str, Any]]:
        caller = _researcher(_request)
        return self._reply(self._gateway.restart(caller.name, caller.uid, force=force), _more)

    def _reply(self, steps: Steps[Any], more: bool) -> Iterator[dict[str, Any]]:
        return _answers(steps, "status", more=more)


def _researcher(caller: Caller | None) -> Caller:
    assert caller is not None  # noqa: S101 - Service.answer always passes it
    policy.may_use_gateway(caller, GROUP)
    return caller


class AdminInterface:
    """org.labshell.Admin: the only methods that take a user's name."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._users = Users(gateway)

    def AddUser(
        self,
        name: str,
        keys_: list[str],
        template: str | None,
        port: int | None,
        limits: dict[str, str],
        dry_run: bool,
        _more: bool = False,
    ) -> Iterator[dict[str, Any]]:
        config = self._gateway.config
        new = NewUser(
            name=policy.checked_name(name),
            keys=tuple(keys.parse(text) for text in keys_),
            template=policy.checked_template(template or config.template),
            port=port,
            limits=policy.engine_limits(
                {"cpu": config.cpu, "memory": config.memory, "disk": config.disk, "processes": str(config.processes)},
                limits,
            ),
        )
        return _answers(self._users.add(new, dry_run=dry_run), "result", more=_more)

    def RemoveUser(self, name: str, archive: bool, dry_run: bool, _more: bool = False) -> Iterator[dict[str, Any]]:
        return _answers(self._users.remove(name, archive=archive, dry_run=dry_run), "result", more=_more)

    def List(self) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: {"users": self._users.list()}), "result", more=False)

    def Show(self, name: str) -> Iterator[dict[str, Any]]:
        return _answers(_at_once(lambda: self._users.show(name)), "result", more=False)

    def Reconcile(self, plan: bool) -> Iterator[dict[str, Any]]:
        def reconcile() -> dict[str, Any]:
            change = self._gateway.reconcile(plan=plan)
            return {key: [_rule(item) for item in getattr(change, key)] for key in ("remove", "add")}

        return _answers(_at_once(reconcile), "result", more=False)


def _rule(forward: policy.Forward) -> dict[str, Any]:
    return {"port": forward.port, "user": forward.user, "to": f"{forward.address}:{forward.target}"}
