"""A storage pool without a free byte: whoever runs goes on, everybody else hears why not, and afterwards all is there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping

import pytest
from hostile import served_or_told, works
from testhost import DAEMON, Host, wait_until

pytestmark = pytest.mark.root
POOL = "/var/lib/lxd/storage-pools/small"
FILLER = f"{POOL}/.filler"
# A daemon that finds out only from the engine: the pool may fill between its look and the engine's act.
WITHOUT_LOOKING = """
from labshell.operations.lifecycle import Lifecycle
Lifecycle.refuse_full_pool = lambda *_: None
from labshell.daemon.main import main
main()
"""
# What is left for one that the engine did start or stop: what runs inside has no byte to write, either.
HALF_BOOTED = ("did not shut down within", "SSH server has not answered")
REBUILD, SNAPSHOT = "rebuild --yes", "snapshot create full"
SCRIPT = "/usr/local/lib/without_looking.py"
LOOKS = "looked at before"
DAEMONS = {LOOKS: DAEMON, "found by the engine": f"/opt/labshell/venv/bin/python -I {SCRIPT}"}


@pytest.fixture(scope="module", params=DAEMONS)
def daemon(request: pytest.FixtureRequest) -> str:
    """Which of the two is at work."""
    return str(request.param)


@pytest.fixture(scope="module")
def lab(host: Host, daemon: str) -> Iterator[dict[str, int]]:
    """Their ports by name: two people of a lab whose pool has 2 GiB."""
    with contextlib.ExitStack() as cleanup:
        host.run(["lxc", "storage", "create", "small", "btrfs", "size=2GiB"])
        cleanup.callback(host.run, ["lxc", "storage", "delete", "small"])
        host.run(["lxc", "copy", "template", "little", "--storage", "small"])
        cleanup.callback(host.run, ["lxc", "delete", "little"])
        host.run(["tee", SCRIPT], input=WITHOUT_LOOKING)
        cleanup.callback(host.run, ["rm", SCRIPT])
        cleanup.enter_context(host.configured('pool = "small"\ntemplate = "little"', DAEMONS[daemon]))
        for name in ("runs", "rests"):
            host.add_user(name)
            cleanup.callback(host.remove_user, name)
        yield {name: host.ssh_port(name) for name in ("runs", "rests")}


@pytest.fixture
def people(host: Host, lab: dict[str, int]) -> dict[str, int]:
    """The same, each with a file and without snapshots."""
    for name in lab:
        host.client.ssh(name, "run echo precious > thesis", check=True)
        if snapshots_of(host, name):
            host.client.ssh(name, "snapshot delete full --yes", check=True)
    return lab


def snapshots_of(host: Host, name: str) -> list[str]:
    return [item["name"] for item in json.loads(host.client.ssh(name, "snapshot --json", check=True).stdout)]


def fill(host: Host) -> None:
    """To the last byte. What stops or is cleared away gives some back, so once more before whatever must not have any."""
    wait_until(lambda: _is_full_when_filled(host), 60)


def _is_full_when_filled(host: Host) -> bool:
    for block in ("1M", "4k"):
        host.run(["sh", "-c", f"dd if=/dev/zero bs={block} >> {FILLER}; sync -f {FILLER}"], check=False)
    return host.run(["sh", "-c", f"echo more > {POOL}/.more"], check=False).returncode != 0


@contextlib.contextmanager
def without_a_free_byte(host: Host) -> Iterator[None]:
    fill(host)
    try:
        yield
    finally:
        host.run(["sh", "-c", f"rm -f {FILLER} {POOL}/.more; sync -f {POOL}"])


def nobody_is_half_added(host: Host, name: str) -> None:
    assert host.run(["getent", "passwd", name], check=False).returncode != 0
    left = host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout.split()
    assert name not in left
    assert not [other for other in left if other.endswith("--new")]
    assert not host.exists(f"/public/ports/{name}")


def done_without_a_free_byte(host: Host, daemon: str, name: str, verbs: Iterable[str]) -> set[str]:
    """Which of these verbs were done: the engine does what needs no byte more. Of the others the person was told.

    A daemon that looks before leaves no rebuild and no snapshot to the engine.
    """
    done = set()
    for verb in verbs:
        fill(host)
        told = served_or_told(host.client.ssh(name, verb, timeout=120))
        assert not told or any(words in told for words in ("pool is full", *HALF_BOOTED)), told
        if not told:
            done.add(verb)
    assert daemon != LOOKS or done.isdisjoint({REBUILD, SNAPSHOT})
    return done


def everything_is_there(host: Host, people: dict[str, int], done: Mapping[str, set[str]]) -> None:
    """Whoever was not rebuilt has their file, and whose snapshot was not taken has none."""
    for name, port in people.items():
        works(host, name, port)
        of_theirs = done.get(name, set())
        there = host.client.ssh(name, "cat thesis", port=port)
        assert there.stdout == ("" if REBUILD in of_theirs else "precious\n")
        assert snapshots_of(host, name) == (["full"] if SNAPSHOT in of_theirs else [])


def test_whoever_runs_goes_on_and_a_start_a_rebuild_and_a_new_person_are_told_why_not(
    host: Host, daemon: str, people: dict[str, int]
) -> None:
    public = str(host.client.make_key("unlucky").with_suffix(".pub"))
    host.client.ssh("rests", "stop --yes", check=True)
    with without_a_free_byte(host):
        works(host, "runs", people["runs"])
        done = done_without_a_free_byte(host, daemon, "rests", (REBUILD, SNAPSHOT, "start"))
        fill(host)
        refused = host.admin("add-user", "unlucky", "--key", public, check=False)
        assert refused.returncode != 0
        assert "pool is full" in refused.stderr
        nobody_is_half_added(host, "unlucky")
        assert "pool-full" in host.admin("doctor", "--json", check=False).stdout
        works(host, "runs", people["runs"])
    everything_is_there(host, people, {"rests": done})
    host.add_user("unlucky")
    host.remove_user("unlucky")


def test_a_pool_that_fills_under_a_running_container_stops_no_rebuild_half_way(
    host: Host, daemon: str, people: dict[str, int]
) -> None:
    """rebuild and restart of somebody who runs: the container as it was, running or stopped, and the sentence.

    No key is lost, which everything_is_there() sees by logging in.
    """
    second, third = (host.client.make_key(name).with_suffix(".pub").read_text() for name in ("second", "third"))
    host.client.ssh("runs", f"keys add {second.strip()}", check=True)
    with without_a_free_byte(host):
        verbs = (f"keys add {third.strip()}", "keys remove 2 --yes", REBUILD, "restart --yes", SNAPSHOT, "status")
        done = done_without_a_free_byte(host, daemon, "runs", verbs)
        assert "--new" not in host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout
    # Booted without a byte to write, as it may have been, its SSH server is not there before another start.
    host.client.ssh("runs", "restart --force --yes", check=True, timeout=120)
    everything_is_there(host, people, {"runs": done})


def test_removing_somebody_makes_room(host: Host, people: dict[str, int]) -> None:
    host.add_user("leaves")
    try:
        with without_a_free_byte(host):
            host.remove_user("leaves")
            nobody_is_half_added(host, "leaves")
    finally:
        host.admin("remove-user", "leaves", "--yes", "--no-archive", check=False)
    everything_is_there(host, people, {})
