"""The keys inside a container: changed as a whole, or as they were."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

import pytest
from doubles import FakeContainers

from labshell.engine import identity
from labshell.engine.containers import Containers
from labshell.errors import LabshellError

OWN, OURS, NEW = "ssh-rsa AAAAown me@desk", "ssh-ed25519 AAAAours", "ssh-ed25519 AAAAnew"
NO_BYTE_MORE = "ulimit -f 0; trap '' XFSZ;"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two keys; `getent` says that it is everybody's, and whose its files are does not matter."""
    programs = {
        "getent": f"echo 'me:x:1:1::{tmp_path}:/bin/sh'",
        "chown": "true",
        "install": f"mkdir -p {tmp_path}/.ssh",
    }
    for name, does in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "authorized_keys").write_text(f"{OWN}\n{OURS}\n")
    return tmp_path


def change(home: Path, action: str, key: str, before: str = "") -> tuple[int, list[str]]:
    """The script's exit status, and the keys that are there afterwards."""
    argv = ["/bin/sh", "-c", before + identity.KEY_SCRIPT, "labshell", "me", action, key.split()[1], key]
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    status = subprocess.run(argv, env={"PATH": path}, capture_output=True, check=False).returncode
    assert os.listdir(home / ".ssh") == ["authorized_keys"]
    return status, (home / ".ssh" / "authorized_keys").read_text().splitlines()


@pytest.mark.parametrize(
    ("action", "key", "after"),
    [
        ("add", NEW, [OWN, OURS, NEW]),
        ("add", OURS, [OWN, OURS]),
        ("remove", OURS, [OWN]),
        ("remove", NEW, [OWN, OURS]),
        ("only", NEW, [NEW]),
    ],
)
def test_keys_of_the_container_are_changed(home: Path, action: str, key: str, after: list[str]) -> None:
    assert change(home, action, key) == (0, after)


def test_the_last_key_can_go(home: Path) -> None:
    assert change(home, "remove", OWN) == (0, [OURS])
    assert change(home, "remove", OURS) == (0, [])


@pytest.mark.parametrize(("action", "key"), [("add", NEW), ("remove", OURS), ("only", NEW)])
def test_a_disk_that_takes_nothing_more_loses_no_key(home: Path, action: str, key: str) -> None:
    status, after = change(home, action, key, NO_BYTE_MORE)
    assert status != 0
    assert after == [OWN, OURS]


@pytest.mark.parametrize(
    ("pool_is_full", "says"), [(True, "The storage pool is full"), (False, "mktemp: No space left on device.")]
)
def test_whose_space_has_run_out_is_for_the_pool_to_say(
    monkeypatch: pytest.MonkeyPatch, *, pool_is_full: bool, says: str
) -> None:
    containers = FakeContainers()
    containers.clones.make("template", "ada", "ada", 30000, "10.83.0.2")
    monkeypatch.setattr(containers, "run", lambda *_: (1, "mktemp: No space left on device\n"))
    monkeypatch.setattr(containers, "is_full", lambda _: pool_is_full)
    with pytest.raises(LabshellError, match=says):
        identity.set_keys(cast(Containers, containers), "ada", [])


def test_units_get_their_settings_once_and_only_where_there_is_systemd() -> None:
    fake = FakeContainers()
    containers, there = cast("Containers", fake), fake.instances["template"].files
    identity.write_units(containers, "template")
    assert identity.UNITS_FILE not in there
    there["/etc/systemd/system/ssh.service"] = b""
    there[f"{identity.UNITS_FOLDER}/own.conf"] = b"theirs"
    identity.write_units(containers, "template")
    assert there[identity.UNITS_FILE] == identity.UNITS_DROP_IN.encode()
    assert there[f"{identity.UNITS_FOLDER}/own.conf"] == b"theirs"
    there[identity.UNITS_FILE] = b"changed"
    identity.write_units(containers, "template")
    assert there[identity.UNITS_FILE] == b"changed"
