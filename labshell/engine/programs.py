"""Programs inside a container for a user who is logged in: the engine's exec, not its network or sshd.

The engine's own client program runs as our child, on streams made here; the other ends go to the caller's login
shell. The daemon copies no byte and accepts no descriptor, and a caller who goes away closes the streams.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.host import files
from labshell.model.names import INSTANCE
from labshell.model.ports import SSH

CLIENTS = ("/usr/bin/lxc", "/snap/bin/lxc")
WITH_US = ("/usr/bin/setpriv", "--pdeathsig", "TERM")  # a daemon that is killed leaves no program behind
END_SECONDS = 5.0
ERROR = 2  # the place of standard error
LISTENS_SECONDS = 1.0  # the engine's client passes no signal on before it is connected
LOOK_SECONDS = 0.5
OUTPUT_BYTES = 1 << 16
CONNECT_SECONDS = 5.0
NOTHING: Mapping[str, str] = MappingProxyType({})


class RunningProgram:
    """A running program inside a container, and the caller's ends of its streams.

    One descriptor is a terminal; three are standard input, output and error.
    """

    def __init__(self, process: subprocess.Popen[bytes], descriptors: list[int]) -> None:
        self._process = process
        self._listens_at = time.monotonic() + LISTENS_SECONDS
        self.descriptors = descriptors
        self._kept: list[int] = []

    def hand_over(self) -> None:
        """Close our copies of the caller's ends, once they have been sent, but for that of standard error.

        runuser writes a line there before it ends what it started. The engine's client would die of a line that
        nobody can read any more, and the engine would kill runuser with that undone.
        """
        for descriptor in self.descriptors[:ERROR]:
            os.close(descriptor)
        self._kept += self.descriptors[ERROR:]
        self.descriptors = []

    def wait(self, is_caller_gone: Callable[[], bool]) -> int:
        """The program's exit status; if the caller goes away first, the program is ended."""
        while True:
            if self._has_ended_within(LOOK_SECONDS):
                return _status(self._process.returncode)
            if is_caller_gone():
                self.end()

    def end(self) -> None:
        """End the program. SIGTERM first: the engine's client passes it on, and runuser ends what it started."""
        self.hand_over()
        try:
            self._end_process()
        finally:
            while self._kept:
                os.close(self._kept.pop())

    def output(self, timeout_seconds: float, most_bytes: int) -> tuple[int, str]:
        """For a program without a caller: its exit status, and the last OUTPUT_BYTES it prints, on both streams.

        One that takes too long or prints without end is ended: TryAgain.
        """
        given, *printing = self.descriptors
        self.descriptors = []
        os.close(given)
        printed = select.poll()
        for descriptor in printing:
            printed.register(descriptor, select.POLLIN)
        deadline, found, count = time.monotonic() + timeout_seconds, bytearray(), 0
        without_end = TryAgain(
            "container-command-timeout", "The command in the container timed out; restart the container."
        )
        try:
            while printing:
                for descriptor, _ in printed.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    data = os.read(descriptor, OUTPUT_BYTES)
                    count += len(data)
                    found += data
                    del found[:-OUTPUT_BYTES]
                    if not data:
                        printed.unregister(descriptor)
                        printing.remove(descriptor)
                        os.close(descriptor)
                if time.monotonic() > deadline or count > most_bytes:
                    raise without_end
            if not self._has_ended_within(max(0.0, deadline - time.monotonic())):
                raise without_end
        finally:
            self._end_process()
            for descriptor in printing:
                os.close(descriptor)
        return _status(self._process.returncode), found.decode("utf-8", "replace")

    def _end_process(self) -> None:
        if self._has_ended_within(max(0.0, self._listens_at - time.monotonic())):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._send(number)
            if self._has_ended_within(END_SECONDS):
                return

    def _send(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it has not become the leader of a group yet
            self._process.send_signal(number)

    def _has_ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _status(status: int) -> int:
    return 128 - status if status < 0 else status


def run_inside(
    engine_socket: str,
    state: Path,
    name: str,
    argv: list[str],
    *,
    terminal: tuple[str, int, int] | None,
    environment: Mapping[str, str] = NOTHING,
) -> RunningProgram:
    """Run `argv` inside the container `name` as root; `terminal` is its type, rows and columns, or None.

    `environment` is what it is given beside what the engine sets.
    """
    client = _client()
    if not INSTANCE.fullmatch(name):
        raise UsageError("container-name-invalid", "{name} is not the name of a container.", name=repr(name)[:80])
    clients = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(state), "LXD_CONF": str(state / "lxc")}
    if engine_socket:
        clients["LXD_SOCKET"] = engine_socket
    mode = "interactive" if terminal else "non-interactive"
    given = [f"--env={key}={value}" for key, value in environment.items()]
    command = [client, "exec", name, f"--mode={mode}", *given]
    if terminal:
        # The controlling terminal of a session of its own: so the size follows, and hanging up ends it.
        command = ["/usr/bin/setsid", "--ctty", *command]
    command = [*WITH_US, *command, "--", *argv]
    _ensure_client_settings(state / "lxc")
    ours, theirs = _terminal(*terminal[1:]) if terminal else _streams()
    try:
        streams = theirs * 3 if terminal else theirs
        process = subprocess.Popen(
            command, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=clients, cwd="/",
            start_new_session=not terminal,
        )  # fmt: skip
    except OSError as error:
        for descriptor in ours:
            os.close(descriptor)
        raise LabshellError("engine-client-failed", "The engine's client program could not be started.") from error
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return RunningProgram(process, ours)


def _client() -> str:
    client = next((path for path in CLIENTS if os.access(path, os.X_OK)), None)
    if client is None:
        raise LabshellError("engine-client-missing", "The engine's client program lxc is not installed on the host.")
    return client


def become(name: str, argv: list[str]) -> None:
    """This process becomes the engine's client program, with `argv` running as root inside the container `name`."""
    client = _client()
    os.execv(client, [client, "exec", name, "--", *argv])  # noqa: S606 - no shell is wanted


def _ensure_client_settings(folder: Path) -> None:
    """The client program greets a user who runs it for the first time; an empty file of settings prevents that."""
    files.ensure_folder(folder, 0o700)
    if files.read(folder / "config.yml") is None:
        files.write(folder / "config.yml", b"{}\n", 0o600)


def _terminal(rows: int, columns: int) -> tuple[list[int], list[int]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    return [ours], [theirs]


def _streams() -> tuple[list[int], list[int]]:
    """Pipes, so that either end sees when the other closes: ours and the program's, in the order 0, 1, 2."""
    (read0, write0), (read1, write1), (read2, write2) = os.pipe(), os.pipe(), os.pipe()
    return [write0, read1, read2], [read0, write1, write2]


def connect(address: str, port: int = SSH) -> int:
    """A connected TCP socket to a container, as a descriptor for the caller."""
    try:
        connection = socket.create_connection((address, port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise TryAgain(
            "container-ssh-no-answer", "The container's SSH server does not answer; try `enter`."
        ) from error
    connection.settimeout(None)
    return connection.detach()
