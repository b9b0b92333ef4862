"""What is in a container's disk, what its limit may be, and what btrfs says of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import counted, fill_beyond_its_limit, limit_disk
from testhost import POOL, Host

pytestmark = pytest.mark.root
MANY = 300  # more subvolumes than the kernel names at once
ASK = "import json, pathlib, sys; from labshell.host import btrfs; print(json.dumps(btrfs.referenced(pathlib.Path(sys.argv[1]), 'things')))"


def disk_in_status(host: Host, user: str) -> int:
    return int(json.loads(host.client.ssh(user, "status --json", check=True).stdout)["disk_used"])


@pytest.fixture
def limited(host: Host, guest: str) -> str:
    limit_disk(host, guest)
    return guest


@pytest.fixture
def things(host: Host) -> Iterator[str]:
    """A btrfs that counts, with very many subvolumes in one folder and one in another."""
    top = "/srv/things"
    host.run(
        [
            "sh",
            "-c",
            f"truncate -s 300M {top}.img; mkfs.btrfs -q {top}.img; mkdir {top}; mount -o loop {top}.img {top}",
        ]
    )
    try:
        host.run(["sh", "-c", f"mkdir {top}/things {top}/others; btrfs subvolume create {top}/others/one"])
        host.run(["sh", "-c", f"for n in $(seq {MANY}); do btrfs subvolume create {top}/things/thing$n; done"])
        host.run(
            [
                "sh",
                "-c",
                f"head -c 5M /dev/zero > {top}/things/thing7/file; cp --reflink {top}/things/thing7/file {top}/things/thing{MANY}",
            ]
        )
        yield top
    finally:
        host.run(["sh", "-c", f"umount {top}; rmdir {top}; rm {top}.img"])


def test_a_disk_is_as_full_as_its_limit_counts_with_what_it_shares(host: Host, limited: str, bob: str) -> None:
    """The engine leaves out what a container shares with its template and its snapshots: after a snapshot, everything."""
    host.client.ssh(limited, "run head -c 50M /dev/urandom > file; sync", check=True)
    host.client.ssh(limited, "snapshot create all", check=True)
    found = counted(host, POOL)[f"containers/{limited}"]
    assert found > 100 << 20
    assert abs(disk_in_status(host, limited) - found) < 4 << 20  # it is at work
    rows = {row["user"]: row for row in json.loads(host.admin("list", "--json").stdout)}
    assert abs(rows[limited]["disk"] - found) < 4 << 20
    assert abs(rows[bob]["disk"] - counted(host, POOL)[f"containers/{bob}"]) < 4 << 20
    share = next(
        item for item in json.loads(host.client.ssh(limited, "doctor --json").stdout) if item["check"] == "Disk"
    )
    assert share["finding"]["values"]["percent"] == f"{found / (1 << 30):.0%}"


def a_little_more(host: Host, user: str) -> str:
    """A disk limit by which 100 MiB are left."""
    return f"{(counted(host, POOL)[f'containers/{user}'] >> 20) + 100}MiB"


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--expires", "2099-01-01"]], ids=lambda more: "".join(more[:1]))
def test_a_disk_limit_below_what_is_there_is_refused_and_nothing_changes(
    host: Host, limited: str, more: list[str]
) -> None:
    refused = host.admin("set", limited, "--disk", "100MiB", *more, check=False)
    assert refused.returncode == 2
    assert f"A disk limit of 100MiB is too little for {limited}, in which there are " in refused.stderr
    assert json.loads(host.client.ssh(limited, "status --json", check=True).stdout)["disk_limit"] == "1GiB"
    assert json.loads(host.admin("show", limited, "--json").stdout)["expires"] is None
    host.client.ssh(limited, "run head -c 50M /dev/zero > file; sync", check=True)
    host.admin("set", limited, "--disk", "900MiB")
    host.admin("set", limited, "--disk", "none")


def test_nobody_goes_back_to_what_todays_limit_does_not_allow(host: Host, limited: str) -> None:
    """Neither to a snapshot nor to the container from before a rebuild; what they have goes on running."""
    host.client.ssh(limited, "run head -c 200M /dev/zero > file", check=True)
    host.client.ssh(limited, "snapshot create large", check=True)
    host.client.ssh(limited, "rebuild --yes", check=True, timeout=120)
    host.client.ssh(limited, "rebuild undo --yes", check=True, timeout=120)
    host.client.ssh(limited, "run rm file; sync", check=True)
    size = a_little_more(host, limited)
    host.admin("set", limited, "--disk", size)
    refused = host.client.ssh(limited, "snapshot restore large --yes")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"A disk limit of {size} is too little for large, in which" in refused.stderr

    host.admin("set", limited, "--disk", "1GiB")
    host.client.ssh(limited, "snapshot restore large --yes", check=True, timeout=120)
    host.client.ssh(limited, "rebuild --yes", check=True, timeout=120)
    host.admin("set", limited, "--disk", a_little_more(host, limited))
    refused = host.client.ssh(limited, "rebuild undo --yes", timeout=120)
    assert (refused.returncode, "is too little for" in refused.stderr) == (2, True)
    assert json.loads(host.client.ssh(limited, "status --json", check=True).stdout)["state"] == "running"
    host.admin("set", limited, "--disk", "1GiB")
    host.client.ssh(limited, "rebuild undo --yes", check=True, timeout=120)
    assert host.client.ssh(limited, "run ls", check=True).stdout == "file\n"


def test_a_full_disk_gets_more_room_from_the_kernel_where_the_engine_gives_none(host: Host, limited: str) -> None:
    fill_beyond_its_limit(host, limited)
    assert "than its disk limit allows" in host.admin("set", limited, "--disk", "2GiB", check=False).stderr
    line = next(
        line
        for line in host.run(["btrfs", "qgroup", "show", "-re", POOL]).stdout.splitlines()
        if line.endswith(f"/{limited}")
    )
    host.run(["btrfs", "qgroup", "limit", "2G", line.split()[0], POOL])
    host.admin("set", limited, "--disk", "2GiB")
    host.client.ssh(limited, "run head -c 100M /dev/zero > more; sync", check=True)
    host.client.ssh(limited, "restart --yes", check=True, timeout=120)


def test_the_kernel_is_asked_for_every_subvolume_of_a_folder_however_many(host: Host, things: str) -> None:
    without_rights = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]  # the daemon has very few
    ask = [*without_rights, "/opt/labshell/venv/bin/python", "-I", "-c", ASK, things]
    assert json.loads(host.run(ask).stdout) == {}  # nobody counts yet
    host.run(["btrfs", "quota", "enable", things])
    host.run(["btrfs", "quota", "rescan", "-w", things])
    found = {f"things/{name}": held for name, held in json.loads(host.run(ask).stdout).items()}
    assert len(found) == MANY
    assert found == {path: held for path, held in counted(host, things).items() if path.startswith("things/")}
    assert found["things/thing7"] > 5 << 20
    assert found[f"things/thing{MANY}"] > 5 << 20
    elsewhere = [*ask[:-1], str(Path(things).parent)]
    assert json.loads(host.run(elsewhere).stdout) == {}
