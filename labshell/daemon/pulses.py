"""Signs of life: callers who wait hear every few seconds that their request is being worked on.

So they know a daemon that hangs by its silence, however long a copy may take.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from labshell.daemon.calls import Call
from labshell.wire import protocol

PULSE_SECONDS = 3
PULSE = protocol.encode({"parameters": {}, "continues": True})


class Pulses:
    """The connections with a waiting caller, and when each was last sent something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, tuple[Call, float]] = {}

    @contextlib.contextmanager
    def during(self, connection: socket.socket, call: Call) -> Iterator[None]:
        """While the block runs, a caller waits for the end of this call."""
        self._heard(connection, call)
        try:
            yield
        finally:
            self._leave_alone(connection)

    def send(self, connection: socket.socket, reply: bytes, call: Call) -> None:
        """Send a reply with what is attached to it. Whoever got streams is busy with those and not listening."""
        self._leave_alone(connection)
        sent = socket.send_fds(connection, [reply], call.attached) if call.attached else 0
        connection.sendall(reply[sent:])
        if not call.attached:
            self._heard(connection, call)

    def beat_until(self, stopping: threading.Event) -> None:
        """Until `stopping`, tell everybody who has waited long and asked for more than one reply."""
        while not stopping.wait(1):
            now = time.monotonic()
            with self._lock:
                late = [item for item in self._waiting.items() if item[1][1] + PULSE_SECONDS <= now]
                for connection, (call, _) in late:
                    self._waiting[connection] = (call, now)
                    if call.wants_more:
                        # The socket has a time limit, so this never blocks: who does not read hears nothing.
                        with contextlib.suppress(OSError):
                            os.write(connection.fileno(), PULSE)

    def _heard(self, connection: socket.socket, call: Call) -> None:
        with self._lock:
            self._waiting[connection] = (call, time.monotonic())

    def _leave_alone(self, connection: socket.socket) -> None:
        with self._lock:
            self._waiting.pop(connection, None)
