"""The daemon's edge: bounded messages, counted connections, verbs that go on."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from refusals import refused

from labshell.daemon import main as daemon
from labshell.daemon import pulses
from labshell.daemon.calls import Call
from labshell.daemon.main import Connections, Server, requests
from labshell.daemon.pulses import Pulses
from labshell.errors import LabshellError
from labshell.forwarding.firewall import Firewall
from labshell.model.access import Caller

ALICE = Caller(30000, "alice", frozenset({"labshell"}))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_requests_are_cut_at_their_ends(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"one\0two\0thr")
    theirs.sendall(b"ee\0half")
    theirs.shutdown(socket.SHUT_WR)
    assert list(requests(ours)) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("message", [b"x" * 70_000, b"x" * 66_000 + b"\0"])
def test_a_request_that_is_too_long_ends_the_connection(pair: Pair, message: bytes) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=lambda: contextlib.suppress(OSError).__enter__() or theirs.sendall(message))
    sender.start()
    assert list(requests(ours)) == []
    ours.close()
    sender.join(10)


def test_a_request_that_never_ends_ends_the_connection(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "REQUEST_SECONDS", 0.05)
    ours, theirs = pair
    theirs.sendall(b"half")
    with contextlib.suppress(TimeoutError):
        assert list(requests(ours)) == []


def test_one_connection_carries_a_limited_number_of_requests(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"x\0" * 100)
    assert len(list(requests(ours))) == daemon.REQUESTS_PER_CONNECTION


def test_connections_are_limited_for_each_and_for_all_but_root() -> None:
    connections = Connections()
    with contextlib.ExitStack() as held:
        mine = [held.enter_context(connections.one_more(30000)) for _ in range(20)]
        assert mine.count(True) == daemon.CONNECTIONS_PER_UID
        others = [held.enter_context(connections.one_more(30001 + number // 8)) for number in range(400)]
        assert others.count(True) == daemon.CONNECTIONS - daemon.CONNECTIONS_PER_UID
        assert held.enter_context(connections.one_more(0))
    with connections.one_more(30000) as allowed:
        assert allowed


class Counting:
    """A service whose verb takes three steps."""

    def __init__(self) -> None:
        self.steps = 0

    def answer(self, message: bytes, call: Call) -> Iterator[bytes]:
        assert message
        for _ in range(3):
            yield b"step\0"
            self.steps += 1
        assert call.is_gone()


def test_whoever_is_turned_away_hears_whose_connections_are_too_many() -> None:
    connections = Connections()
    with contextlib.ExitStack() as open_ones:
        for uid in range(30_000, 30_000 + daemon.CONNECTIONS // daemon.CONNECTIONS_PER_UID):
            assert not connections.are_all_taken
            for _ in range(daemon.CONNECTIONS_PER_UID):
                assert open_ones.enter_context(connections.one_more(uid))
        assert connections.are_all_taken


def test_a_verb_goes_on_to_its_end_when_the_caller_has_gone(pair: Pair) -> None:
    ours, theirs = pair
    service = Counting()
    theirs.close()
    with pytest.raises(ConnectionAbortedError):
        Server(ours, service, Connections(), Pulses())._answer(ours, b"x", ALICE)  # type: ignore[arg-type]
    assert service.steps == 3


def test_a_caller_for_whom_there_is_no_thread_is_turned_away_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the unit's limit on tasks, a thread cannot be started."""
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "served" or refused:
            real(thread)
        else:
            refused.append(thread)
            raise RuntimeError("can't start new thread")

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    service: Any = SimpleNamespace(answer=lambda message, call: iter([b"step\0"]))
    server = Server(listener, service, Connections(), Pulses())
    threading.Thread(target=server.serve_forever, name="served", daemon=True).start()
    monkeypatch.setattr(threading.Thread, "start", start)
    answers = []
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            caller.connect(str(tmp_path / "socket"))
            with contextlib.suppress(OSError):
                caller.sendall(b"x\0")
            answers.append(caller.recv(1000))
    assert b"Crowded" in answers[0]
    assert answers[1] == b"step\0"


def test_a_peer_that_only_waits_has_not_hung_up(pair: Pair) -> None:
    ours, theirs = pair
    ours.settimeout(10)
    assert not daemon._has_hung_up(ours)
    theirs.sendall(b"x")
    assert not daemon._has_hung_up(ours)
    ours.recv(1)
    theirs.close()
    assert daemon._has_hung_up(ours)


@pytest.mark.parametrize("unread", [b"", b"four", b"x" * 60_000])
def test_a_peer_that_closes_has_hung_up_whatever_it_left_unread(pair: Pair, unread: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(unread)
    assert not daemon._has_hung_up(ours)
    theirs.close()
    assert daemon._has_hung_up(ours)


def test_a_peer_that_ends_its_sending_side_has_hung_up(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"four")
    theirs.shutdown(socket.SHUT_WR)
    assert daemon._has_hung_up(ours)


def test_a_live_socket_is_kept_and_a_dead_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with daemon.listen(path, None):
        assert path.stat().st_mode & 0o777 == 0o600
        with refused(LabshellError, "daemon-already-running"):
            daemon.listen(path, None)
    with daemon.listen(path, None), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_sockets_are_passed_to_this_very_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert daemon.passed_sockets() == {}


def test_the_caller_is_who_the_kernel_says(pair: Pair) -> None:
    assert daemon.caller_of(pair[0]).uid == os.geteuid()


def test_a_caller_who_waits_hears_that_the_daemon_lives(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulses, "PULSE_SECONDS", 0)
    ours, theirs = pair
    ours.settimeout(10)
    theirs.settimeout(10)
    beating, stopping = Pulses(), threading.Event()
    thread = threading.Thread(target=beating.beat_until, args=(stopping,))
    thread.start()
    try:
        with beating.during(ours, Call(ALICE, wants_more=True)):
            assert theirs.recv(100) == pulses.PULSE
        theirs.settimeout(1.5)
        with beating.during(ours, Call(ALICE)), pytest.raises(TimeoutError):
            theirs.recv(100)
    finally:
        stopping.set()
        thread.join()


def test_a_caller_who_does_not_read_holds_up_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulses, "PULSE_SECONDS", 0)
    ours, _ = pair
    ours.settimeout(10)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(ours.fileno(), b"x" * 4096)
    beating, stopping = Pulses(), threading.Event()
    thread = threading.Thread(target=beating.beat_until, args=(stopping,))
    with beating.during(ours, Call(ALICE, wants_more=True)):
        thread.start()
        stopping.wait(1.5)
        stopping.set()
        thread.join(5)
    assert not thread.is_alive()


class Pause(threading.Event):
    """Stops the daemon's work at its first pause, and remembers how long that would have been."""

    seconds = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds = timeout or 0.0
        return True


@pytest.mark.parametrize(("work", "least", "most"), [(0.0, 30, 30), (0.05, 50, 5000)])
def test_looking_at_the_rules_takes_a_thousandth_of_a_processor_at_most(
    work: float, least: float, most: float
) -> None:
    def reconcile() -> None:
        end = time.thread_time() + work
        while time.thread_time() < end:
            pass

    firewall = SimpleNamespace(reconcile=reconcile)
    pause = Pause()
    daemon.keep_reconciled(cast(Firewall, firewall), 30, pause)
    assert least <= pause.seconds <= most
