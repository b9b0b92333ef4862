"""A container's disk without a free byte: its owner is warned, gets in again without anybody's help, and cleans up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile import limit_disk, served_or_told, works
from testhost import Completed, Host

pytestmark = pytest.mark.root


def asked(host: Host, user: str, verb: str, **options: Any) -> Completed:
    return host.client.ssh(user, verb, timeout=120, **options)


def fill(host: Host, user: str) -> None:
    """To the last byte that the kernel gives its owner."""
    done = asked(
        host, user, "run for n in 1 2 3; do cat /dev/zero >> big; sync; dd if=/dev/zero bs=4k >> small; sync; done"
    )
    assert "quota" in done.stderr
    assert asked(host, user, "run cp /bin/bash more").returncode != 0


@pytest.fixture
def full(host: Host, guest: str) -> str:
    """A researcher who has filled the disk."""
    limit_disk(host, guest)
    asked(host, guest, "run echo precious > thesis; sync", check=True)
    fill(host, guest)
    return guest


def found_by_host(host: Host, user: str) -> dict[str, str]:
    found = json.loads(host.admin("doctor", "--json", check=False).stdout)
    return next((item for item in found if (item["id"], item["subject"]) == ("disk-full", user)), {})


def disk_of(host: Host, user: str) -> dict[str, Any]:
    found = json.loads(asked(host, user, "doctor --json").stdout)
    return next(dict(item) for item in found if item["check"] == "Disk")


def test_the_owner_is_warned_and_stops_starts_enters_and_cleans_up(host: Host, full: str) -> None:
    assert json.loads(asked(host, full, "status --json", check=True).stdout)["disk_full"] is True
    assert "delete files first" in asked(host, full, "", check=True).stdout
    assert "do not stop or restart before" in disk_of(host, full)["remedy"]["sentence"]
    assert found_by_host(host, full)["id"] == "disk-full"

    stopped = asked(host, full, "stop --yes", check=True)
    assert "Delete files first" in stopped.stderr
    assert "delete files first" in stopped.stdout
    assert "Start it: run `start`" in disk_of(host, full)["remedy"]["sentence"]
    assert f"labshell-admin start {full}" in found_by_host(host, full)["remedy"]

    assert asked(host, full, "run cat thesis", check=True).stdout == "precious\n"
    restarted = asked(host, full, "restart --yes", check=True)
    assert "Delete files first" in restarted.stderr
    asked(host, full, "run rm -f big small; sync", check=True)
    works(host, full, host.ssh_port(full))
    assert "Delete" not in asked(host, full, "restart --yes", check=True).stderr
    assert json.loads(asked(host, full, "status --json", check=True).stdout)["disk_full"] is False
    assert disk_of(host, full)["result"] == "good"
    assert found_by_host(host, full) == {}


def test_it_starts_however_often_its_owner_only_stops_it(host: Host, full: str) -> None:
    for _ in range(4):
        asked(host, full, "stop --yes", check=True)
        asked(host, full, "start", check=True)
    asked(host, full, "rm big", port=host.ssh_port(full), check=True)
    works(host, full, host.ssh_port(full))


def test_keys_and_snapshots_of_a_full_disk_work_or_say_why_not(host: Host, full: str) -> None:
    public = host.client.make_key("second").with_suffix(".pub").read_text()
    for verb, given in (("keys add", public), ("snapshot create all", None), ("keys", None), ("snapshot", None)):
        served_or_told(asked(host, full, verb, input=given))
    told = served_or_told(asked(host, full, "snapshot create again"))
    assert not told or "disk of the container is full" in told
    asked(host, full, "run rm -f big small", check=True)
    asked(host, full, "keys add", input=public, check=True)
    asked(host, full, "snapshot create after", check=True)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_the_administrator_gives_room_as_doctor_says(host: Host, full: str, state: str) -> None:
    if state == "stopped":
        asked(host, full, "stop --yes", check=True)
    remedy = found_by_host(host, full)["remedy"]
    host.run(["sh", "-euc", remedy], timeout=120)
    asked(host, full, "run head -c 100M /dev/zero > more; sync", check=True)
    works(host, full, host.ssh_port(full))
    assert found_by_host(host, full) == {}


def test_of_the_labs_storage_the_owner_is_told_to_tell_the_administrator(host: Host, guest: str) -> None:
    """Without a limit the figure is the pool's, which is not theirs to clean up."""
    assert disk_of(host, guest)["finding"]["sentence"] == "The lab's storage is {percent} full."
