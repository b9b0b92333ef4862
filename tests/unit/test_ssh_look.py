"""The look at an SSH server: a slow one is given its time, and looks become rarer."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from labshell.host.tcp import ssh_answers
from labshell.operations.lifecycle import pause_after


@pytest.mark.parametrize(
    ("greeting", "delay", "answers"), [(b"SSH-2.0-x\r\n", 0.5, True), (b"220 ftp\r\n", 0.0, False), (b"", 0.0, False)]
)
def test_a_server_that_greets_late_answers_and_is_looked_at_once(
    greeting: bytes, delay: float, *, answers: bool
) -> None:
    accepted = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            nonlocal accepted
            connection, _ = server.accept()
            with connection:
                accepted += 1
                time.sleep(delay)
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        port = server.getsockname()[1]
        assert ssh_answers("127.0.0.1", port, connect_seconds=0.2) == answers
        thread.join(10)
    assert accepted == 1


def test_a_port_that_is_closed_or_silent_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ssh_answers("127.0.0.1", port, banner_seconds=0.1)
    assert not ssh_answers("127.0.0.1", port)


def test_looks_become_rarer_and_stay_bounded() -> None:
    pauses = [pause_after(seconds) for seconds in (0, 0.1, 1, 5, 10, 300)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.02, "a fast start is not made slower"
    assert pause_after(1) <= 0.06
    assert pause_after(300) == 1.0
