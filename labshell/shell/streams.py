"""The login shell's side of a program or a connection: bytes between the caller's streams and what the daemon sent.

Loaded only by the verbs that need it. One thread, bounded buffers, half-closes passed on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 256 * 1024
LARGE_PIPE = 1 << 20  # the most that an unprivileged process may have


class Pump:
    """One direction: from a descriptor to another, a chunk at a time."""

    def __init__(self, source: int, target: int, at_end: Callable[[int], None] | None = None) -> None:
        """`at_end` tells the target that nothing more will come."""
        self.source = source
        self.target = target
        self._at_end = at_end
        self._pending = b""
        self._is_blocked = False  # there is something that the target has not taken yet
        self.is_open = True
        self.was_cut = False

    @property
    def wants_to_read(self) -> bool:
        return self.is_open and not self._is_blocked

    @property
    def wants_to_write(self) -> bool:
        return self.is_open and self._is_blocked

    def read(self) -> None:
        """Take a chunk; at the end of the source, close the target's direction."""
        try:
            self._pending = os.read(self.source, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""
        self._is_blocked = True
        if not self._pending:
            self.finish()

    def write(self) -> None:
        try:
            self._pending = self._pending[os.write(self.target, self._pending) :]
            self._is_blocked = bool(self._pending)
        except BlockingIOError:
            return
        except OSError:
            self.cut()

    def cut(self) -> None:
        """The reader of the target has gone."""
        self.was_cut = True
        self.finish()

    def finish(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._at_end:
            with contextlib.suppress(OSError):
                self._at_end(self.target)


class Splice(Pump):
    """The same for a pipe and something else: the kernel moves the bytes, this process never sees them."""

    def read(self) -> None:
        try:
            moved = os.splice(self.source, self.target, CHUNK)
        except BlockingIOError:
            self._is_blocked = True
        except BrokenPipeError:
            self.cut()
        except OSError:
            self.finish()
        else:
            self._is_blocked = False
            if not moved:
                self.finish()

    def write(self) -> None:
        self.read()


def _pump(stream: int) -> type[Pump]:
    """The quickest way to or from one of our own streams, which are pipes but on a terminal."""
    if not stat.S_ISFIFO(os.fstat(stream).st_mode):
        return Pump
    with contextlib.suppress(OSError):  # it stays as large as it is
        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, LARGE_PIPE)
    return Splice


def _shut_down(descriptor: int) -> None:
    """Half-close a connection."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_WR)


def relay(pumps: list[Pump], until: list[Pump]) -> None:
    """Move bytes until every pump of `until` has come to its end.

    BrokenPipeError if one of them did not, because the reader of what it writes has gone.
    """
    for pump in pumps:
        os.set_blocking(pump.target, False)
    try:
        while any(pump.is_open for pump in until):
            events = _wait(pumps)
            for pump in pumps:
                if pump.is_open and events.get(pump.target, 0) & (select.POLLERR | select.POLLHUP):
                    pump.cut()
                if pump.wants_to_write and events.get(pump.target, 0) & select.POLLOUT:
                    pump.write()
                elif pump.wants_to_read and events.get(pump.source, 0) & ~select.POLLOUT:
                    pump.read()
        if any(pump.was_cut for pump in until):
            raise BrokenPipeError
    finally:
        for pump in pumps:
            with contextlib.suppress(OSError):
                os.set_blocking(pump.target, True)


def _wait(pumps: list[Pump]) -> dict[int, int]:
    """Until something can be moved or an end has gone: descriptor -> poll's events."""
    wanted: dict[int, int] = {}
    for pump in pumps:
        if pump.is_open:
            wanted[pump.target] = wanted.get(pump.target, 0) | (select.POLLOUT if pump.wants_to_write else 0)
            if pump.wants_to_read:
                wanted[pump.source] = wanted.get(pump.source, 0) | select.POLLIN
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll())


def relay_connection(descriptor: int) -> None:
    """Standard input and output become the connection, until the other side closes it."""
    to_them, to_us = _pump(0)(0, descriptor, _shut_down), _pump(1)(descriptor, 1)
    try:
        relay([to_them, to_us], until=[to_us])
    finally:
        os.close(descriptor)


def relay_streams(descriptors: list[int]) -> None:
    """Standard input, output and error become a program's, until it has closed both outputs."""
    given, out, err = descriptors
    outputs = [_pump(1)(out, 1), _pump(2)(err, 2)]
    relay([_pump(0)(0, given, os.close), *outputs], until=outputs)


def relay_terminal(descriptor: int) -> None:
    """This terminal becomes a program's: raw, and its size follows."""
    try:
        with _raw_terminal(), _size_followed(descriptor):
            output = Pump(descriptor, 1)
            relay([Pump(0, descriptor), output], until=[output])
    finally:  # many times in one menu
        os.close(descriptor)


def size_of_terminal() -> tuple[int, int]:
    """Rows and columns of this terminal; a usual size if it does not say."""
    try:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # the default would throw away what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _size_followed(descriptor: int) -> Iterator[None]:
    def follow(*_: object) -> None:
        rows, columns = size_of_terminal()
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    before = signal.signal(signal.SIGWINCH, follow)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
