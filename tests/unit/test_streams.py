"""Bytes between a caller and a program: all of them, in order, to the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from labshell.shell.streams import Pump, Splice, relay

PAYLOAD = os.urandom(3 << 20)
both_kinds = pytest.mark.parametrize("kind", [Pump, Splice])


def collect(descriptor: int, into: list[bytes]) -> threading.Thread:
    def read() -> None:
        while chunk := os.read(descriptor, 65536):
            into.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


@both_kinds
def test_everything_arrives_and_the_end_is_passed_on(kind: type[Pump]) -> None:
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    received: list[bytes] = []
    reader = collect(drain, received)
    writer = threading.Thread(
        target=lambda: (os.write(feed, PAYLOAD[: 1 << 16]), _write_all(feed, PAYLOAD[1 << 16 :]), os.close(feed))
    )
    writer.start()
    pump = kind(source, target, os.close)
    relay([pump], until=[pump])
    reader.join(10)
    writer.join(10)
    assert b"".join(received) == PAYLOAD
    os.close(source)
    os.close(drain)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@both_kinds
def test_a_half_close_still_lets_the_answer_through(kind: type[Pump]) -> None:
    ours, theirs = socket.socketpair()
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    os.write(feed, b"question")
    os.close(feed)

    def answer() -> None:
        asked = b""
        while chunk := theirs.recv(100):
            asked += chunk
        theirs.sendall(b"answer to " + asked)
        theirs.close()

    peer = threading.Thread(target=answer)
    peer.start()
    to_us = kind(ours.fileno(), target)
    with ours:
        relay([kind(source, ours.fileno(), lambda _: ours.shutdown(socket.SHUT_WR)), to_us], until=[to_us])
    peer.join(10)
    os.close(target)
    assert os.read(drain, 100) == b"answer to question"
    for descriptor in (source, drain):
        os.close(descriptor)


@both_kinds
def test_it_ends_when_nobody_reads_any_more(kind: type[Pump]) -> None:
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    os.close(drain)
    pump = kind(source, target)
    with pytest.raises(BrokenPipeError):
        relay([pump], until=[pump])
    for descriptor in (source, feed, target):
        os.close(descriptor)


READ_RAW = """
import os, select
from labshell.shell import streams
with streams._raw_terminal():
    os.write(1, os.read(0, 100) if select.select([0], [], [], 2)[0] else b"")
"""


@pytest.mark.parametrize("typed", [b"ls -l", b"ls -l\n", b"ls\nexit\npar"])
def test_what_is_typed_before_the_terminal_is_raw_is_not_lost(typed: bytes) -> None:
    ours, theirs = os.openpty()
    try:
        os.write(ours, typed)
        done = subprocess.run([sys.executable, "-c", READ_RAW], stdin=theirs, stdout=subprocess.PIPE, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == typed
