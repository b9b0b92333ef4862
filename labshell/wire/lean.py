"""JSON, sockets and signals for the login shell, without `re` and `enum`, which json, socket and signal import.

CPython's own C parts, of which those three are made; an interpreter that has them in another shape gets the three
themselves. What it saves is in docs/performance.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json
    import _signal as signal
    import _socket as socket

    class _Reading:
        """How numbers and objects are read: as json.loads does it."""

        strict = True
        object_hook = object_pairs_hook = None
        parse_int = int
        parse_float = parse_constant = float

    def _unknown(value: object) -> Any:
        raise TypeError(f"{type(value).__name__} is nothing that JSON has")

    _scan = _json.make_scanner(_Reading)  # type: ignore[arg-type] # only its attributes are read
    _flags = (False, False, True)  # keys in order, odd keys left out, NaN allowed: as json.dumps does it
    _chunks = _json.make_encoder({}, _unknown, _json.encode_basestring_ascii, None, ":", ",", *_flags)

    def loads(text: str) -> Any:
        """json.loads for a text that is one value and nothing else; ValueError if it is not."""
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            end = -1
        if end != len(text):
            raise ValueError("not one JSON value")
        return value

    def dumps(value: object) -> str:
        """json.dumps without blanks."""
        return "".join(_chunks(value, 0))

except (ImportError, TypeError):
    import json
    import signal
    import socket  # type: ignore[no-redef]

    def loads(text: str) -> Any:
        return json.loads(text)

    def dumps(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))


__all__ = ["dumps", "loads", "signal", "socket"]
