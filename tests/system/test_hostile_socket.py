"""The daemon's socket against a researcher who writes to it whatever they like: by hypothesis, for a bounded time."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hostile import as_researcher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testhost import Host, wait_until

pytestmark = pytest.mark.root
SOCKET = "/run/labshell/labshell.sock"
BATCHES, MESSAGES = 25, 30
# One connection for each line of standard input: when to pause, whether to read the answer, and the bytes.
SENDER = """
import base64, json, socket, sys, time
for line in sys.stdin:
    pieces, reads = json.loads(line)
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(15)
        try:
            connection.connect(sys.argv[1])
            for piece in pieces:
                connection.sendall(base64.b64decode(piece))
                time.sleep(0.001)
            if reads:
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65536):
                    answer += data
        except (BrokenPipeError, ConnectionResetError):
            pass
    print(json.dumps(base64.b64encode(answer).decode()), flush=True)
"""
# Every method but those that take long or give a descriptor; with parameters of any kind they are refused anyway.
METHODS = st.sampled_from(
    ["Status", "Start", "Forwards", "AddForward", "RemoveForward", "Keys", "AddKey", "RemoveKey", "Snapshots", "Doctor",
     "CreateSnapshot", "RestoreSnapshot", "Enter", "Proxy", "Hold", "", "_report", "__init__", "status", "Status\0", "Ｓtatus"]
).map(lambda name: f"org.labshell.Gateway.{name}")  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(["user", "uid", "name", "port", "target", "key", "force", "method", "container", "lasting"])
REQUESTS = st.fixed_dictionaries(
    {"method": METHODS | VALUES},
    optional={
        "parameters": st.dictionaries(NAMES | st.text(max_size=5), VALUES, min_size=1, max_size=4) | VALUES,
        "more": VALUES, "oneway": VALUES, "upgrade": VALUES, "user": VALUES,
    },
).map(lambda request: json.dumps(request).encode("utf-8", "surrogatepass") + b"\0")  # fmt: skip
DEEP = st.integers(1, 30_000).map(lambda depth: b"[" * depth + b"\0")
MESSAGE = REQUESTS | VALUES.map(lambda value: json.dumps(value).encode() + b"\0") | st.binary(max_size=300) | DEEP


def cut(message: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(message) + 1) for place in places} | {0, len(message)})
    return [message[start:end] for start, end in itertools.pairwise(ends)] or [message]


CONVERSATIONS = st.lists(
    st.tuples(
        st.lists(MESSAGE, min_size=1, max_size=3).map(b"".join),
        st.lists(st.integers(0, 10_000), max_size=4),
        st.booleans(),
    ),
    min_size=MESSAGES,
    max_size=MESSAGES,
)


@pytest.fixture(scope="module")
def mallory(host: Host) -> Iterator[str]:
    host.add_user("mallory")
    yield "mallory"
    host.remove_user("mallory")


def send(host: Host, user: str, conversations: list[tuple[list[bytes], bool]]) -> list[bytes]:
    argv = as_researcher(user, ["/usr/bin/python3", "-Ic", SENDER, SOCKET])
    lines = [
        json.dumps([[base64.b64encode(piece).decode() for piece in pieces], reads]) for pieces, reads in conversations
    ]
    done = host.run(argv, input="\n".join(lines), timeout=300)
    return [base64.b64decode(json.loads(line)) for line in done.stdout.splitlines()]


def replies(answer: bytes) -> list[dict[str, Any]]:
    return [json.loads(part) for part in answer.split(b"\0") if part]


STATUS = b'{"method": "org.labshell.Gateway.Status", "parameters": {}}\0'


def test_no_bytes_bring_the_daemon_down_or_an_answer_about_somebody_else(
    host: Host, alice: str, mallory: str
) -> None:
    pid, seen = host.daemon_pid(), 0

    @settings(max_examples=BATCHES, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(CONVERSATIONS)
    def fuzz(conversations: list[tuple[bytes, list[int], bool]]) -> None:
        nonlocal seen
        pieces = [(cut(message, places), reads) for message, places, reads in conversations]
        for answer in send(host, mallory, pieces):
            seen += 1
            for word in (b"Traceback", b"/opt/", b"/usr/", b".py", alice.encode()):
                assert word not in answer
            for reply in replies(answer):
                assert set(reply) <= {"error", "parameters", "continues"}
        assert host.daemon_pid() == pid
        [answer] = send(host, alice, [([STATUS], True)])
        assert replies(answer)[0]["parameters"]["status"]["user"] == alice

    fuzz()
    assert seen >= BATCHES * MESSAGES // 2
    assert "bug" not in host.run(["tail", "-n", "2000", "/var/log/labshell/labshelld.log"]).stdout


def test_a_request_that_is_cut_at_any_byte_does_nothing(host: Host, mallory: str) -> None:
    host.client.ssh(mallory, "start", check=True)
    stop = b'{"method": "org.labshell.Gateway.Stop", "parameters": {"force": true}}\0'
    answers = send(host, mallory, [([stop[:length]], length % 2 == 0) for length in range(len(stop))])
    assert set(answers) == {b""}
    time.sleep(0.5)
    [answer] = send(host, mallory, [([STATUS], True)])
    assert replies(answer)[0]["parameters"]["status"]["state"] == "running"


def test_descriptors_that_are_passed_along_are_dropped(host: Host, mallory: str) -> None:
    script = """
import array, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.connect(sys.argv[1])
    descriptors = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(100)])
    connection.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    print(input())
"""
    count = ["sh", "-c", f"ls /proc/{host.daemon_pid()}/fd | wc -l"]
    before = int(host.run(count).stdout)
    argv = as_researcher(mallory, ["/usr/bin/python3", "-Ic", script, SOCKET])
    for _ in range(5):
        host.run(argv, input="go\n")
    assert int(host.run(count).stdout) <= before + 3


# Starts a program inside and keeps its streams open in a child, while the connection itself is closed.
LEAVE = """
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
connection.connect(sys.argv[1])
enter = {"command": sys.argv[2], "root": False, "terminal": None}
request = {"method": "org.labshell.Gateway.Enter", "parameters": enter, "more": True}
connection.sendall(json.dumps(request).encode() + b"\\0")
streams = []
while not streams:
    data, streams, _, _ = socket.recv_fds(connection, 65536, 3)
    assert data
print("started", flush=True)
input()
connection.sendall(sys.argv[3].encode())
connection.close()
print("closed", flush=True)
input()
"""


@pytest.mark.parametrize("more", ["", "four", '{"method": "org.labshell.Gateway.Status", "parameters": {}}'])
def test_a_program_ends_with_its_connection_whatever_was_left_unread(host: Host, alice: str, more: str) -> None:
    command = "exec sleep 4711"
    running = ["pgrep", "-fx", "sleep 4711"]
    argv = as_researcher(alice, ["/usr/bin/python3", "-Ic", LEAVE, SOCKET, command, more])
    with host.background(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        assert peer.stdout.readline() == "started\n"
        wait_until(lambda: host.run(running, check=False).stdout, 10)
        time.sleep(1)  # the engine's client passes a signal on only when it is connected
        peer.stdin.write("\n")
        peer.stdin.flush()
        assert peer.stdout.readline() == "closed\n"
        wait_until(lambda: not host.run(running, check=False).stdout, 3)
