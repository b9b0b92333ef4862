"""The wire: hostile requests to the daemon, and a daemon that misbehaves towards the client."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from labshell.errors import Crowded, LabshellError, NoContainer, TryAgain, UsageError
from labshell.wire import protocol

GOOD = b'{"parameters":{},"continues":true}\0{"parameters":{"status":{"a":1}}}\0'


def test_a_request_is_decoded_with_its_parameters() -> None:
    request = protocol.decode_request(b'{"method":"a.B","parameters":{"x":1},"more":true}')
    assert request == {"method": "a.B", "parameters": {"x": 1}, "more": True}
    assert protocol.decode_request(b'{"method":"a.B"}')["parameters"] == {}


@pytest.mark.parametrize("command", ["[[ -n ${HOME} ]] && echo {a,{b,{c,d}}}", "[" * 1000, "]}" * 1000, 'awk "{{{"'])
def test_brackets_in_what_somebody_types_are_text(command: str) -> None:
    message = protocol.encode({"method": "a.B", "parameters": {"command": command}})[:-1]
    assert protocol.decode_request(message)["parameters"] == {"command": command}


def test_what_is_too_long_for_the_daemon_is_not_sent(tmp_path: Path) -> None:
    with refused(UsageError, "request-too-long"):
        list(protocol.call(str(tmp_path / "socket"), "a.B", {"command": "容" * 11_000}, 1))


@pytest.mark.parametrize(
    "message",
    [b"", b"{}", b"[]", b"1", b"null", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 50_000, b'{"method":1}', b'{"method":"a","method":"b"}',
     b'{"method":"a","parameters":{"x":NaN}}', b'{"method":"a","parameters":{"x":Infinity}}', b'{"method":"a","parameters":[]}',
     b'{"method":"a","more":1}', b'{"method":"a","user":"root"}', b'{"method":"a","parameters":{"x":"\\ud800"}}', b"\xff\xfe{}", b"\xef\xbb\xbf{}",
     '{"method":"a"}'.encode("utf-16"), b'{"method":"a","parameters":' + b"1" * 5000 + b"}"],
)  # fmt: skip
def test_anything_that_is_no_request_is_a_value_error(message: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the contract is the class
        protocol.decode_request(message)


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: repr(x).encode("utf-8", "replace"))
)
def test_no_bytes_end_in_anything_but_a_request_or_a_value_error(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(protocol.decode_request(message)["method"], str)


Peer = Callable[[socket.socket], None]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[Peer], str]]:
    """Makes a daemon that treats its one caller as it likes."""
    threads = []

    def start(peer: Peer) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()

        def serve() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(65536)
                peer(connection)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return str(tmp_path / "socket")

    yield start
    for thread in threads:
        thread.join(10)


def call(path: str, timeout: float = 5) -> list[dict[str, object]]:
    return list(protocol.call(path, "org.labshell.Gateway.Status", {}, timeout))


def one_byte_at_a_time(connection: socket.socket) -> None:
    for byte in GOOD:
        connection.sendall(bytes([byte]))


@pytest.mark.parametrize("peer", [lambda connection: connection.sendall(GOOD), one_byte_at_a_time])
def test_replies_arrive_however_they_are_cut(daemon: Callable[[Peer], str], peer: Peer) -> None:
    assert call(daemon(peer)) == [{}, {"status": {"a": 1}}]


@pytest.mark.parametrize(
    "reply",
    [b"", b'{"parameters":', b"garbage\0", b"\xff\0", b'{"continues":true}\0', b'{"parameters":{"attached":1}}\0'],
)
def test_a_daemon_that_breaks_off_or_talks_nonsense_means_try_again(
    daemon: Callable[[Peer], str], reply: bytes
) -> None:
    with pytest.raises(TryAgain):
        call(daemon(lambda connection: connection.sendall(reply)))


def test_a_daemon_that_says_nothing_means_try_again(daemon: Callable[[Peer], str]) -> None:
    done = threading.Event()
    with refused(TryAgain, "daemon-no-answer"):
        call(daemon(lambda _: done.wait(10) and None), timeout=0.05)
    done.set()


def test_an_absent_or_refusing_socket_means_try_again(tmp_path: Path) -> None:
    with refused(TryAgain, "daemon-not-running"):
        call(str(tmp_path / "none"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead"))
    with refused(TryAgain, "daemon-not-running"):
        call(str(tmp_path / "dead"))


def test_without_a_free_descriptor_it_is_try_again(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with refused(TryAgain, "daemon-connection-lost"):
            list(protocol.call(str(tmp_path / "none"), "a.B", {}, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CROWDED = protocol.encode({"error": "org.labshell.Gateway.Crowded", "parameters": {"sentence": "Too many."}})


def serve_in_turn(path: Path, replies: list[bytes]) -> threading.Thread:
    """A daemon for as many callers as there are replies: each is answered at once, before it has been heard."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            for reply in replies:
                with listener.accept()[0] as connection:
                    connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_caller_who_is_refused_for_the_crowd_waits_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "CROWDED_STEP_SECONDS", 0.01)
    monkeypatch.setattr(protocol, "LONGEST_REQUEST", 6_000_000)
    thread = serve_in_turn(tmp_path / "socket", [CROWDED, CROWDED, GOOD])
    # More than a socket holds: it is refused while it still sends.
    replies = list(protocol.call(str(tmp_path / "socket"), "a.B", {"text": "x" * 5_000_000}, 5))
    assert replies == [{}, {"status": {"a": 1}}]
    thread.join(5)


def test_a_crowd_that_does_not_go_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CROWDED_STEP_SECONDS", 0.01)
    monkeypatch.setattr(protocol, "CROWDED_ATTEMPTS", 3)
    thread = serve_in_turn(tmp_path / "socket", [CROWDED] * 3)
    with pytest.raises(Crowded, match="Too many"):
        call(str(tmp_path / "socket"))
    thread.join(5)


def test_a_full_queue_is_a_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CROWDED_STEP_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        waiting.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "socket"))
        with refused(Crowded, "daemon-no-answer"):
            call(str(tmp_path / "socket"))


def test_the_daemons_error_is_raised_with_all_that_it_carries(daemon: Callable[[Peer], str]) -> None:
    error = {
        "error": "org.labshell.Gateway.NoContainer",
        "parameters": {"id": "none", "sentence": "No {name}.", "values": {"name": "alice"}, "detail": "d", "remedy": None},
    }
    with pytest.raises(NoContainer) as caught:
        call(daemon(lambda connection: connection.sendall(protocol.encode(error))))
    raised = caught.value
    assert (raised.id, str(raised), raised.detail, raised.remedy) == ("none", "No alice.", "d", "")


def test_a_foreign_error_is_one_of_ours(daemon: Callable[[Peer], str]) -> None:
    with refused(LabshellError, "daemon-refused-request"):
        call(daemon(lambda connection: connection.sendall(b'{"error":"org.varlink.service.MethodNotFound"}\0')))


def test_what_is_attached_to_a_reply_arrives_with_it(daemon: Callable[[Peer], str], tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"content")
        file.flush()
        reply = protocol.encode({"parameters": {"attached": 1}})
        replies = call(daemon(lambda connection: socket.send_fds(connection, [reply], [file.fileno()]) and None))
    descriptors = replies[0]["descriptors"]
    assert isinstance(descriptors, list)
    assert os.pread(descriptors[0], 10, 0) == b"content"
    os.close(descriptors[0])
