"""labshell-admin doctor --try: what a user would get is tried from inside, and nothing of it is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import CONFIG, Host

pytestmark = pytest.mark.root

NAME = "labshell--try"
LEFT = (
    "lxc list --format csv --columns n; ls -A /public/ports /var/lib/labshell/host-keys /home; cat /public/next-port; "
    "getent passwd; cat /var/lib/labshell/next-uid /var/lib/labshell/resting-ports.json; "
    "iptables-legacy-save -t nat | grep ^-A; ls -d /run/labshell/try"
)


def left(host: Host) -> str:
    """Everything that a trial could leave or use up."""
    return host.run(["sh", "-c", LEFT], check=False).stdout


def tried(host: Host) -> dict[str, Any]:
    """What a trial says; that nothing of it is left, and that the exit status is that of what it says."""
    before = left(host)
    done = host.admin("doctor", "--try", "--json", check=False)
    said: dict[str, Any] = json.loads(done.stdout)
    assert left(host) == before
    assert done.returncode == (not said["is_good"])
    return {step["step"]: step for step in said["steps"]} | {"is_good": said["is_good"]}


@contextlib.contextmanager
def with_file(host: Host, path: str, text: str) -> Iterator[None]:
    """With more in a file of the host while the block runs."""
    before = host.read(path)
    host.run(["tee", path], input=f"{before}\n{text}\n")
    try:
        yield
    finally:
        host.run(["tee", path], input=before)


def test_a_sound_host_passes_in_plain_words(host: Host, alice: str) -> None:
    before = left(host)
    host.admin("start", alice)
    lines = host.admin("doctor", "--try").stdout.splitlines()
    assert lines[-1] == "A user's container works on this host."
    steps = {line[:58].strip(): line[58:].split() for line in lines[:-1] if not line.startswith(" ")}
    assert {step for step, said in steps.items() if said[2:]} == {"Reaching the outside"}  # which this host does not
    assert all(float(said[0]) >= 0 and said[1] == "s" for said in steps.values())
    assert len(steps) == 9
    assert left(host) == before


def test_a_container_reaches_the_outside_where_the_host_does(host: Host) -> None:
    server = ["/usr/bin/python3", "-m", "http.server", "8000", "--bind", host.other.address]
    source = f"deb [trusted=yes] http://{host.other.address}:8000/debian stable main"
    with host.other.background(server, stderr=-3, stdout=-3):
        host.run(["sh", "-c", f"for _ in $(seq 50); do nc -z {host.other.address} 8000 && break; sleep 0.1; done"], check=False)  # fmt: skip
        host.run(["tee", "/etc/apt/sources.list.d/try.list"], input=source)
        try:
            assert tried(host)["Reaching the outside"]["result"] == "good"
            drop = ["FORWARD", "-d", host.other.address, "-j", "DROP"]
            host.run(["iptables-legacy", "-w", "-I", *drop])
            try:
                said = tried(host)
            finally:
                host.run(["iptables-legacy", "-w", "-D", *drop])
        finally:
            host.run(["rm", "/etc/apt/sources.list.d/try.list"])
    assert said["Reaching the outside"]["result"] == "bad"
    assert not said["is_good"]


def test_an_open_guard_is_seen_and_neither_template_nor_daemon_is_needed_to_say_so(host: Host, alice: str) -> None:
    host.stop_daemon()
    try:
        host.run(["nft", "flush", "table", "inet", "labshell"])
        said = tried(host)
    finally:
        host.start_daemon()
    assert said["This host's services are closed to it"]["result"] == "bad"
    assert ":22" in said["This host's services are closed to it"]["detail"]
    assert said["The container engine is closed to it"]["result"] == "good"


def test_without_a_template_it_refuses_and_names_the_command(host: Host) -> None:
    before = left(host)
    with with_file(host, CONFIG, 'template = "none-such"'):
        refused = host.admin("doctor", "--try", check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        "labshell-admin: There is no template none-such; make one with: labshell-admin template build\n"
    )
    assert refused.stdout == ""
    assert left(host) == before


def test_a_container_that_does_not_come_up_is_a_failed_step_and_is_removed(host: Host) -> None:
    with with_file(host, CONFIG, "start_timeout_seconds = 1"):
        said = tried(host)
    assert said["Starting it and waiting for its SSH server"]["result"] == "bad"
    assert set(said) == {
        "Making a container from the template template",
        "Starting it and waiting for its SSH server",
        "Removing it, its rules and its keys",
        "is_good",
    }


@pytest.mark.parametrize(("name", "seconds"), [("INT", "0.9"), ("TERM", "3"), ("HUP", "5"), ("INT", "7")])
def test_one_that_is_interrupted_removes_everything(host: Host, alice: str, name: str, seconds: str) -> None:
    before = left(host)
    trial = ["timeout", "--preserve-status", "--signal", name, seconds, "labshell-admin", "doctor", "--try"]
    done = host.run(trial, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert left(host) == before


def test_what_a_killed_one_left_is_removed_by_the_next(host: Host, alice: str) -> None:
    before = left(host)
    host.run(["timeout", "--signal", "KILL", "4", "labshell-admin", "doctor", "--try"], check=False)
    assert NAME in left(host)
    assert "trial-left" in host.admin("doctor").stdout
    assert host.admin("doctor", "--try").stdout.endswith("works on this host.\n")
    assert left(host) == before
