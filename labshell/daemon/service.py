"""From a request's bytes to a reply's: checked against the interface, dispatched, every end one answer.

A request that carries anything the interface does not name, or of another type, is refused.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import varlink
import varlink.scanner

from labshell import __version__
from labshell.daemon.calls import Call, error_reply
from labshell.errors import LabshellError
from labshell.wire import protocol

log = logging.getLogger(__name__)
BASIC_TYPES = (bool, int, float, str)

INTERFACES = Path(__file__).parents[1] / "wire"


class Service:
    """One socket's interface: turns request bytes into reply bytes."""

    def __init__(self, interface: str, handler: object) -> None:
        self._varlink = varlink.Service(
            vendor="labshell", product="labshelld", version=__version__, interface_dir=str(INTERFACES)
        )
        self._varlink.interface(interface)(lambda: handler)
        self._interface = interface

    def answer(self, message: bytes, call: Call) -> Iterator[bytes]:
        """The replies to one request. Whatever goes wrong becomes one error reply."""
        caller = call.caller
        began, method = time.monotonic(), None
        try:
            request = protocol.decode_request(message)
            method = request["method"]
            self._check(request)
            call.wants_more = request.get("more", False)
            encoded = json.dumps(request).encode()
            for reply in self._varlink.handle(encoded, _request=call):
                if reply is not None:
                    yield reply + b"\0"
            milliseconds = round((time.monotonic() - began) * 1000)
            log.info("request", extra={"method": method, "uid": caller.uid, "user": caller.name, "ms": milliseconds})
        except ValueError as error:
            log.warning("refused request", extra={"uid": caller.uid, "why": str(error)[:200]})
            yield protocol.encode(
                {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": "message"}}
            )
        except varlink.VarlinkError as error:
            yield protocol.encode(error.as_dict())
        except LabshellError as error:
            log.info(
                "refused",
                extra={"method": method, "uid": caller.uid, "id": error.id, "why": str(error)},
                exc_info=error.__cause__,
            )
            yield error_reply(error, to_root=self._interface == protocol.ADMIN)
        except Exception:  # the boundary: a bug in one request must not end the daemon
            reference = secrets.token_hex(4)
            log.exception("bug", extra={"method": method, "uid": caller.uid, "reference": reference})
            bug = LabshellError(
                "bug-in-daemon",
                "Something went wrong inside labshell; please give the administrator the reference {reference}.",
                reference=reference,
            )
            yield error_reply(bug, to_root=self._interface == protocol.ADMIN)

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
