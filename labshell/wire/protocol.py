"""The wire: Varlink messages, which are JSON objects that end in a NUL byte, and the client that sends them.

Standard library only and nothing that is slow to import: the login shell's start-up is every login's cost.
"""

from __future__ import annotations

import sys
import time

from labshell.errors import KINDS, Crowded, LabshellError, NotAllowed, TryAgain, UsageError
from labshell.wire import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

GATEWAY = "org.labshell.Gateway"
ADMIN = "org.labshell.Admin"
LONGEST_REQUEST = 64 * 1024
LONGEST_REPLY = 16 * 1024 * 1024
MOST_DESCRIPTORS = 3
CROWDED_ATTEMPTS = 50
CROWDED_STEP_SECONDS = 0.2
INT_BYTES = 4  # a C int, as the kernel passes descriptors


def encode(message: dict[str, Any]) -> bytes:
    return lean.dumps(message).encode("ascii") + b"\0"


def decode_request(message: bytes) -> dict[str, Any]:
    """An untrusted request as checked values; ValueError says why it is none."""
    import json  # the daemon's: a login has no use for it

    try:
        request = json.loads(message.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(request) is not dict or type(request.get("method")) is not str:
        raise ValueError("not a method call")
    if not request.keys() <= {"method", "parameters", "more", "oneway", "upgrade"}:
        raise ValueError("unknown keys")
    if not all(type(request.get(flag, False)) is bool for flag in ("more", "oneway", "upgrade")):
        raise ValueError("a flag is not true or false")
    if type(request.setdefault("parameters", {})) is not dict:
        raise ValueError("the parameters are not an object")
    return request


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    for text in (*table, *(value for value in table.values() if isinstance(value, str))):
        text.encode("utf-8")  # a lone surrogate is a ValueError here and a crash later
    return table


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def call(path: str, method: str, parameters: dict[str, Any], timeout_seconds: float) -> Iterator[dict[str, Any]]:
    """The replies' parameters, progress first; the daemon's errors are raised as ours.

    Requests over the per-user limit queue for up to ten seconds.
    `timeout_seconds` bounds the silence between two replies. What a reply says is "attached" to it is there as
    "descriptors", for the caller to close.
    """
    request = encode({"method": method, "parameters": parameters, "more": True})
    if len(request) > LONGEST_REQUEST:
        raise UsageError(
            "request-too-long",
            "This is too long: at most {size} KiB go to labshell at once.",
            size=LONGEST_REQUEST >> 10,
        )
    for attempt in range(CROWDED_ATTEMPTS):
        try:
            yield from _call_once(path, request, timeout_seconds)
        except Crowded:
            if attempt == CROWDED_ATTEMPTS - 1:
                raise
            time.sleep(CROWDED_STEP_SECONDS)
        else:
            return


def _call_once(path: str, request: bytes, timeout_seconds: float) -> Iterator[dict[str, Any]]:
    try:
        connection = lean.socket.socket(lean.socket.AF_UNIX, lean.socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_seconds)
            connection.connect(path)
            try:  # noqa: SIM105 - contextlib is slow to import
                connection.sendall(request)
            except BrokenPipeError:
                pass  # whoever is refused is refused at once: the reason is there to be read
            for reply in _replies(connection):
                if "error" in reply:
                    raise _error(reply)
                yield reply.get("parameters", {})
                if not reply.get("continues"):
                    return
        finally:
            connection.close()
    except PermissionError:
        raise NotAllowed("account-not-allowed", "This account may not use labshell here.") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise TryAgain(
            "daemon-not-running", "labshell's daemon is not running on this host; please tell the administrator."
        ) from None
    except BlockingIOError:  # as many as may wait for the daemon wait already
        raise Crowded("daemon-no-answer", "labshell's daemon does not answer; try again in a moment.") from None
    except TimeoutError:
        raise TryAgain("daemon-no-answer", "labshell's daemon does not answer; try again in a moment.") from None
    except (OSError, ValueError, IndexError):
        pass
    raise TryAgain("daemon-connection-lost", "The connection to labshell's daemon was lost; try again in a moment.")


def _replies(connection: lean.socket.socket) -> Iterator[dict[str, Any]]:
    pending, descriptors = b"", list[int]()
    while len(pending) <= LONGEST_REPLY:
        message, end, rest = pending.partition(b"\0")
        if end:
            pending = rest
            reply = lean.loads(message.decode())
            parameters = reply.get("parameters") or {}
            if parameters.get("attached"):
                parameters["descriptors"] = [descriptors.pop(0) for _ in range(parameters["attached"])]
            yield reply
            continue
        received, attached = _receive(connection)
        descriptors += attached
        if not received:
            return
        pending += received


def _receive(connection: lean.socket.socket) -> tuple[bytes, list[int]]:
    """What has come, and the descriptors that came along."""
    space = lean.socket.CMSG_SPACE(MOST_DESCRIPTORS * INT_BYTES)
    received, attached, _, _ = connection.recvmsg(65536, space)
    return received, [
        int.from_bytes(data[start : start + INT_BYTES], sys.byteorder)
        for level, kind, data in attached
        if (level, kind) == (lean.socket.SOL_SOCKET, lean.socket.SCM_RIGHTS)
        for start in range(0, len(data) - len(data) % INT_BYTES, INT_BYTES)
    ]


def _error(reply: dict[str, Any]) -> LabshellError:
    interface, _, name = reply["error"].rpartition(".")
    parameters = reply.get("parameters") or {}
    kind = KINDS.get(name, LabshellError)
    if interface != GATEWAY:
        return LabshellError(
            "daemon-refused-request",
            "labshell's daemon refused the request ({name}); is it of another version?",
            name=name,
        )
    error_id = parameters.get("id") or "daemon-outdated"  # one of before there were ids
    error = kind(error_id, parameters.get("sentence", ""), **parameters.get("values", {}))
    error.detail, error.remedy = parameters.get("detail") or "", parameters.get("remedy") or ""
    return error
