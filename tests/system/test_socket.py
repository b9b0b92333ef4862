"""The daemon's sockets against those who may open them: identity is the kernel's word, never the caller's."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from hostile import as_researcher
from testhost import Host

pytestmark = pytest.mark.root

# Sends what is given on standard input to the users' socket and prints everything that comes back.
TALK = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.settimeout(20)
    connection.connect(sys.argv[1])
    try:
        connection.sendall(sys.stdin.buffer.read())
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            sys.stdout.buffer.write(data)
    except OSError as error:
        print(type(error).__name__)
"""
USERS, ADMIN = "/run/labshell/labshell.sock", "/run/labshell/admin.sock"


def talk(host: Host, user: str, message: str, *, path: str = USERS, group: str = "labshell") -> str:
    argv = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "/usr/bin/python3", "-Ic", TALK, path]
    return host.run(argv, input=message, check=False).stdout


def call(method: str, **parameters: object) -> str:
    return json.dumps({"method": f"org.labshell.Gateway.{method}", "parameters": parameters}) + "\0"


def test_a_researcher_hears_about_their_own_container_only(host: Host, alice: str, bob: str) -> None:
    for name in (alice, bob):
        reply = json.loads(talk(host, name, call("Status")).rstrip("\0"))
        assert reply["parameters"]["status"]["user"] == name
        assert reply["parameters"]["status"]["port"] == host.ssh_port(name)


@pytest.mark.parametrize("field", ["user", "uid", "name", "container", "owner"])
def test_a_request_that_names_somebody_is_refused(host: Host, alice_port: int, field: str) -> None:
    assert alice_port
    assert json.loads(talk(host, "bob", call("Status", **{field: "alice"})).rstrip("\0"))["error"].endswith(
        "InvalidParameter"
    )


def test_the_administrators_socket_is_closed_to_researchers(host: Host, alice_port: int) -> None:
    assert alice_port
    listing = json.dumps({"method": "org.labshell.Admin.List"}) + "\0"
    assert talk(host, "alice", listing, path=ADMIN) == ""
    assert json.loads(talk(host, "alice", listing).rstrip("\0"))["error"].endswith("InterfaceNotFound")
    assert host.run(["stat", "-c", "%U:%G %a", ADMIN]).stdout == "root:root 600\n"
    assert host.run(["stat", "-c", "%U:%G %a", USERS]).stdout == "root:labshell 660\n"


@pytest.mark.parametrize(
    ("user", "group"), [("nobody", "labshell"), ("root", "root"), ("100000", "labshell"), ("www-data", "labshell")]
)
def test_whoever_is_not_a_researcher_is_refused(host: Host, user: str, group: str) -> None:
    reply = talk(host, user, call("Status"), group=group)
    assert json.loads(reply.rstrip("\0"))["error"].endswith("NotAllowed")


@pytest.mark.parametrize(
    "message",
    ["\0", "{}\0", "[]\0", "null\0", "x\0", "{" * 5000 + "\0", '{"method": 1}\0', '{"method": "a", "method": "b"}\0',
     '{"method": "org.labshell.Gateway.Stop", "parameters": {"force": 1}}\0', '{"method": "x.y", "parameters": NaN}\0',
     '{"method": "org.labshell.Gateway._report", "parameters": {}}\0', "\ud83d\0", "A" * 70000, '{"method": '],
)  # fmt: skip
def test_garbage_is_refused_and_the_daemon_lives_on(host: Host, alice_port: int, message: str) -> None:
    assert alice_port
    reply = talk(host, "alice", message.encode("utf-8", "replace").decode())
    assert "Traceback" not in reply
    assert "/opt" not in reply
    assert not reply or "error" in reply or "Error" in reply
    assert "status" in json.loads(talk(host, "alice", call("Status")).rstrip("\0"))["parameters"]


def test_too_many_connections_of_one_user_do_not_keep_others_out(host: Host, alice_port: int, bob_port: int) -> None:
    assert alice_port != bob_port
    hold = """
import socket, sys
held = []
for _ in range(40):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect("/run/labshell/labshell.sock")
    held.append(connection)
refused = 0
for connection in held:
    connection.settimeout(1)
    try:
        refused += b"Crowded" in connection.recv(4096)
    except TimeoutError:
        pass
print(refused, flush=True)
"""
    argv = as_researcher("alice", ["/usr/bin/python3", "-Ic", hold])
    assert int(host.run(argv, timeout=90).stdout) >= 32
    assert host.client.ssh("bob", "status").returncode == 0
    assert host.client.ssh("alice", "status").returncode == 0


def test_a_login_among_too_many_waits_its_turn(host: Host, alice_port: int) -> None:
    assert alice_port
    hold = """
import socket, time
held = [socket.socket(socket.AF_UNIX) for _ in range(8)]
for connection in held:
    connection.connect("/run/labshell/labshell.sock")
print("held", flush=True)
time.sleep(4)
"""
    argv = as_researcher("alice", ["/usr/bin/python3", "-Ic", hold])
    with host.background(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        began = time.monotonic()
        host.client.ssh("alice", "status", check=True)
        assert time.monotonic() - began > 1
    many = [host.client.ssh_argv("alice", "status")] * 40
    running = [host.client.popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for one in many]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
    assert [errors for errors, status in ended if status] == []


def test_the_interface_describes_itself_to_any_varlink_client(host: Host, alice_port: int) -> None:
    assert alice_port
    request = json.dumps(
        {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "org.labshell.Gateway"}}
    )
    assert "method Status()" in talk(host, "alice", request + "\0")
