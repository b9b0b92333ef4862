"""A user's keys where the host's file has a line that is no key: it is shown, hides none, and can be removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doubles import FakeContainers, Instance, answer_of, lab_of
from test_keys import GOOD, KEY, UNREAD

from labshell.config import Config, Paths
from labshell.errors import UsageError
from labshell.host.accounts import Accounts
from labshell.operations.own_keys import OwnKeys
from labshell.shell import answers
from labshell.shell.card import Style

USER, UID = "alice", 30000


class Host:
    """Alice's container, and the real file of her keys."""

    def __init__(self, folder: Path) -> None:
        paths = Paths(keys=folder / "keys", state=folder / "state", run=folder / "run")
        paths.keys.mkdir(mode=0o755)
        paths.run.mkdir()
        self.containers = FakeContainers()
        self.containers.instances[USER] = Instance(USER, UID, "10.83.0.7", state="Running", is_prepared=True)
        config = Config(paths=paths)
        accounts: Any = Accounts(paths, config.uid_range)
        self.file = paths.keys / USER
        self.keys = OwnKeys(lab_of(config, accounts=accounts, containers=self.containers))

    def listed(self) -> list[dict[str, Any]]:
        return self.keys.listing(USER, UID)

    def remove(self, which: str, *, even_the_last: bool = False) -> None:
        answer_of(self.keys.remove(USER, UID, which, even_the_last=even_the_last))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tmp_path.chmod(0o755)
    return Host(tmp_path)


@pytest.mark.parametrize("line", UNREAD)
def test_a_line_that_is_no_key_is_shown_kept_and_removed(host: Host, line: str) -> None:
    bad = line.encode("utf-8", "surrogateescape")
    good = f"restrict,pty {KEY} desk\n".encode()
    host.file.write_bytes(bad + b"\n" + good)
    unread, key = host.listed()
    assert (unread["kind"], unread["only_inside"], key["comment"]) == ("unreadable", False, "desk")
    json.dumps([unread, key]).encode("ascii")
    text = answers.keys_text([unread, key], Style(colour=False))
    assert "no public key; it is kept until you remove it" in text
    assert text.replace("\n", "").isprintable()
    answer_of(host.keys.add(USER, UID, GOOD["rsa"]))
    assert host.file.read_bytes() == bad + b"\n" + good + f"restrict,pty {GOOD['rsa']}\n".encode()
    found = host.keys.find(USER, UID, "1")
    assert not found["is_last"]
    host.remove(found["fingerprint"])
    assert host.file.read_bytes() == good + f"restrict,pty {GOOD['rsa']}\n".encode()


def test_the_last_key_is_the_last_one_to_log_in_with(host: Host) -> None:
    host.file.write_text(f"rubbish\nrestrict,pty {KEY} desk\n")
    for which in ("2", "desk"):
        assert host.keys.find(USER, UID, which)["is_last"]
        with pytest.raises(UsageError, match="last key"):
            host.remove(which)
    host.remove("1")
    with pytest.raises(UsageError, match="last key"):
        host.remove("1")
    host.remove("1", even_the_last=True)
    assert host.file.read_text() == ""
