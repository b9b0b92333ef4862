"""A storage pool without a free byte: whoever runs goes on, everybody else hears why not, and afterwards all is there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from hostile import served_or_told, works
from testhost import DAEMON, Host, wait_until

pytestmark = pytest.mark.root
CONFIG = "/etc/labshell/labshell.toml"
POOL = "/var/lib/lxd/storage-pools/small"
FILLER = f"{POOL}/.filler"
# A daemon that finds out only from the engine: the pool may fill between its look and the engine's act.
WITHOUT_LOOKING = """
from labshell import gateway
gateway.POOL_RESERVE_BYTES = 0
from labshell.daemon import main
main()
"""
SCRIPT = "/usr/local/lib/without_looking.py"
DAEMONS = {"looked at before": DAEMON, "found by the engine": f"/opt/labshell/venv/bin/python -I {SCRIPT}"}


@pytest.fixture(scope="module", params=DAEMONS)
def people(host: Host, request: pytest.FixtureRequest) -> Iterator[dict[str, int]]:
    """Their ports by name: people of a lab whose pool has 2 GiB, one of them running and one stopped."""
    before = host.read(CONFIG)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(host.restart_daemon)
        cleanup.callback(host.run, ["tee", CONFIG], input=before)
        host.run(["lxc", "storage", "create", "small", "btrfs", "size=2GiB"])
        cleanup.callback(host.run, ["lxc", "storage", "delete", "small"])
        host.run(["lxc", "copy", "template", "little", "--storage", "small"])
        cleanup.callback(host.run, ["lxc", "delete", "little"])
        host.run(["tee", CONFIG], input=f'{before}\npool = "small"\ntemplate = "little"\n')
        host.run(["tee", SCRIPT], input=WITHOUT_LOOKING)
        cleanup.callback(host.run, ["rm", SCRIPT])
        host.restart_daemon(DAEMONS[request.param])
        for name in ("runs", "rests"):
            host.add_user(name)
            cleanup.callback(host.remove_user, name)
            host.client.ssh(name, "run echo precious > thesis", check=True)
        yield {name: host.ssh_port(name) for name in ("runs", "rests")}


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


def everything_is_there(host: Host, people: dict[str, int]) -> None:
    for name, port in people.items():
        works(host, name, port)
        assert host.client.ssh(name, "cat thesis", port=port, check=True).stdout == "precious\n"
    assert json.loads(host.client.ssh("rests", "snapshot --json", check=True).stdout) == []


def test_whoever_runs_goes_on_and_a_start_a_rebuild_and_a_new_person_are_told_why_not(
    host: Host, people: dict[str, int]
) -> None:
    public = str(host.client.make_key("unlucky").with_suffix(".pub"))
    host.client.ssh("rests", "stop", check=True)
    with without_a_free_byte(host):
        works(host, "runs", people["runs"])
        for verb in ("rebuild --yes", "snapshot create full", "start"):
            fill(host)
            sentence = served_or_told(host.client.ssh("rests", verb, timeout=120))
            # The engine starts a container if it needs no byte more for it.
            assert "pool is full" in sentence or (verb, sentence) == ("start", "")
        fill(host)
        refused = host.admin("add-user", "unlucky", "--key", public, check=False)
        assert refused.returncode != 0
        assert "pool is full" in refused.stderr
        nobody_is_half_added(host, "unlucky")
        assert "pool-full" in host.admin("doctor", "--json", check=False).stdout
        works(host, "runs", people["runs"])
    everything_is_there(host, people)
    host.add_user("unlucky")
    host.remove_user("unlucky")


def test_a_pool_that_fills_under_a_running_container_stops_no_rebuild_half_way(
    host: Host, people: dict[str, int]
) -> None:
    """rebuild and restart of somebody who runs: the container as it was, running or stopped, and the sentence."""
    with without_a_free_byte(host):
        for verb in ("rebuild --yes", "restart --yes", "snapshot create full", "status"):
            fill(host)
            served_or_told(host.client.ssh("runs", verb, timeout=120))
        assert "--new" not in host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout
    everything_is_there(host, people)


def test_removing_somebody_makes_room(host: Host, people: dict[str, int]) -> None:
    host.add_user("leaves")
    try:
        with without_a_free_byte(host):
            host.remove_user("leaves")
            nobody_is_half_added(host, "leaves")
    finally:
        host.admin("remove-user", "leaves", "--yes", "--no-archive", check=False)
    everything_is_there(host, people)
