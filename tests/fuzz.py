"""Everything that reads bytes of somebody hostile, against inputs that atheris makes by looking at what they reach.

    python tests/fuzz.py TARGET [libFuzzer's options, such as -max_total_time=600]

A target refuses by the errors that its callers catch, or gives what it promises; anything else ends the run.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["labshell"]):
    from labshell import shown
    from labshell.errors import UsageError
    from labshell.model import keys, settings
    from labshell.model.names import checked_name
    from labshell.model.ports import parse_port_file
    from labshell.shell import verbs
    from labshell.wire import description, protocol


def request(data: bytes) -> None:
    """The daemon's socket."""
    with contextlib.suppress(ValueError):
        found = protocol.decode_request(data)
        assert type(found["method"]) is str
        assert type(found["parameters"]) is dict
        protocol.encode(found)
        for interface in (description.load(protocol.GATEWAY), description.load(protocol.ADMIN)):
            for method in interface.methods.values():
                misfit = interface.misfit(method.takes, found["parameters"])
                assert misfit is None or type(misfit) is str


def public_key(data: bytes) -> None:
    """keys add; what is accepted is one line whose options never grow when it is read again."""
    with contextlib.suppress(UsageError):
        key = keys.parse(data.decode("utf-8", "surrogateescape"))
        line = keys.line_on_host(key)
        assert line.count("\n") <= 1
        assert line.startswith("restrict,pty ")
        line.encode("ascii")


def command_line(data: bytes) -> None:
    """ssh HOST WORDS, and the menu."""
    with contextlib.suppress(UsageError):
        verbs.parse(data.decode("utf-8", "surrogateescape"))


def port_file(data: bytes) -> None:
    """/public/ports/USER and /public/next-port."""
    port = parse_port_file(data)
    assert port is None or (type(port) is int and 0 < port < 65536 and data.strip().isdigit())


def name(data: bytes) -> None:
    """A name that the administrator was sent by mail, and values beside it."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(UsageError):
        assert checked_name(text).isascii()
    for setting in ("mounts", "memory", "disk", "cpu", "expires", "gpus"):
        with contextlib.suppress(UsageError):
            settings.checked({setting: text})


def terminal(data: bytes) -> None:
    """Text of a container's that is shown."""
    text = shown.plain(data.decode("utf-8", "surrogateescape"))
    assert all(character.isprintable() for character in text), text
    shown.padded(text, 20).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (request, public_key, command_line, port_file, name, terminal)
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"fuzz: one of {', '.join(TARGETS)}, and options of libFuzzer's")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
