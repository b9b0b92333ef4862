"""What the administrator's verbs on users would do, said before anything is done; and what they refuse."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import FakeContainers, Instance, answer_of, lab_of
from refusals import refused

from labshell.admin import user_card
from labshell.config import Config, Paths
from labshell.errors import TryAgain, UsageError
from labshell.model.keys import PublicKey
from labshell.operations.add_user import AddUser, NewUser
from labshell.operations.list_users import Users
from labshell.operations.remove_user import RemoveUser
from labshell.operations.set_user import Change, SetUser

KEY = PublicKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIG5vYm9keQ==", comment="her laptop")
OTHER = PublicKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIG90aGVyIQ==")
SETTINGS = {"cpu": "8", "memory": "64GiB", "disk": "", "processes": "4096"}


class Containers(FakeContainers):
    """The stand-in, and nothing that would change a container."""

    def all_of(self, user: str) -> list[Any]:
        return [item for item in self.all() if item.owner == user]

    def check_template(self, name: str) -> None:
        self.existing(name)


class Host:
    """A host with alice; bob is to come."""

    def __init__(self, folder: Path) -> None:
        for name in ("run", "state"):
            (folder / name).mkdir()
        self.containers = Containers()
        self.containers.instances["alice"] = Instance(
            "alice", 30000, "10.83.0.2", state="Running", is_prepared=True, limits={"limits.memory": "8GiB"}
        )
        config = Config(paths=Paths(state=folder / "state", run=folder / "run"), archive=str(folder))
        uids, ports = {"alice": 30000}, {"alice": 20000}
        accounts: Any = SimpleNamespace(
            uid_of=uids.get, is_locked=lambda user: False, keys_of=lambda user: [KEY], last_login=lambda user: None,
            next_uid=lambda marked: max({*marked, 30000}) + 1,
        )  # fmt: skip
        registry: Any = SimpleNamespace(
            port_of=ports.get, next_port=lambda: 20010, block=lambda port: range(port, port + 10),
            check=lambda user, port: None,
        )  # fmt: skip
        firewall = SimpleNamespace(has_live_rules=lambda *about: True, forward_user=lambda user: None)
        lab = lab_of(config, accounts=accounts, containers=self.containers, ports=registry, firewall=firewall)
        self.lab, self.users = lab, Users(lab)
        self.add, self.set, self.remove = AddUser(lab).add, SetUser(lab).set, RemoveUser(lab).remove

    def would(self, steps: Any) -> list[str]:
        before = self.containers.changes
        answer = answer_of(steps)
        assert self.containers.changes == before
        return list(answer["would"])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tmp_path.chmod(0o755)
    return Host(tmp_path)


def new(name: str = "bob", **about: Any) -> NewUser:
    settings = {**SETTINGS, **about.pop("settings", {})}
    return NewUser(name, about.pop("keys", (KEY,)), "template", about.pop("port", None), settings, **about)


def test_what_would_be_added_has_its_uid_address_ports_and_limits(host: Host) -> None:
    assert host.would(host.add(new(has_password=True), dry_run=True)) == [
        f"Would make the account bob (uid 30001) with 1 key: {KEY.fingerprint} her laptop.",
        "Would clone the template template as the container bob at 10.83.0.3.",
        "Would give it: cpu 8 processors, memory 64 GiB, disk no limit, processes 4096 processes.",
        "Would set a random password and show it once.",
        "Would give bob the ports 20010-20019.",
        "Would start the container bob and wait for its SSH server.",
    ]
    answer = answer_of(host.add(new(port=22000), dry_run=True))
    plan = answer["plan"]
    assert (plan["uid"], plan["port"], plan["last_port"]) == (30001, 22000, 22009)


def test_who_is_there_already_is_left_as_they_are(host: Host) -> None:
    for dry_run in (True, False):
        answer = answer_of(host.add(new("alice"), dry_run=dry_run))
        user = answer["user"]
        assert (answer["was_there"], user["user"], user["settings"]["memory"]) == (True, "alice", "8GiB")
    assert host.containers.changes == 0
    with refused(UsageError, "user-exists-with-other-keys"):
        answer_of(host.add(new("alice", keys=(OTHER,))))


def test_a_day_that_is_over_and_a_maintenance_are_refused_first(host: Host) -> None:
    yesterday = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)).date().isoformat()
    with pytest.raises(UsageError, match=f"{yesterday} is over"):
        answer_of(host.add(new(settings={"expires": yesterday})))
    host.lab.closed.close("new driver")
    with pytest.raises(TryAgain, match="new driver"):
        answer_of(host.add(new()))
    assert answer_of(host.add(new("alice")))["was_there"]
    assert host.containers.changes == 0


def test_what_would_be_changed_is_said_with_what_is(host: Host) -> None:
    change = Change("alice", {"memory": "16GiB", "cpu": "1"}, (OTHER,), 22000)
    assert host.would(host.set(change, dry_run=True)) == [
        "Would change memory: 8.0 GiB -> 16 GiB.",
        "Would change cpu: no limit -> 1 processor.",
        f"Would change keys: {KEY.fingerprint} her laptop -> {OTHER.fingerprint}.",
        "Would change ports: 20000-20009 -> 22000-22009.",
    ]


def test_what_would_be_removed_is_said_with_its_archive(host: Host, tmp_path: Path) -> None:
    lines = host.would(host.remove("alice", dry_run=True))
    assert lines[0] == "Would lock the account alice (uid 30000) and end its sessions."
    assert lines[1] == "Would stop the container alice."
    assert lines[2].startswith(f"Would write the archive {tmp_path}/alice-")
    assert lines[3:] == [
        "Would delete the container alice with its snapshots.",
        "Would free the ports 20000-20009, and keep them in quarantine for 30 days.",
        "Would remove the account alice and its keys.",
    ]
    assert "Would make no archive." in host.would(host.remove("alice", archive=False, dry_run=True))


def test_the_card_of_a_user_has_every_setting(host: Host) -> None:
    card = user_card.text(host.users.show("alice"))
    for line in ("  memory        8.0 GiB\n", "  disk          no limit\n", "  nesting       no\n", "  expires       never\n",
                 "  Ports         20000 to 20009; 20000 is SSH\n", "  Rules         live\n", "  Snapshots     none\n"):  # fmt: skip
        assert line in card
    assert max(map(len, card.splitlines())) < 100


@pytest.mark.parametrize("verb", ["show", "remove"])
def test_a_name_that_is_no_users_is_said_to_be_none(host: Host, verb: str) -> None:
    def uid_of(name: str) -> None:
        if name == "nobody":
            raise UsageError("account-is-system", "{user} is an existing system account; choose another name.", user=name)

    accounts: Any = host.lab.accounts
    accounts.uid_of = uid_of
    ask: Any = host.users.show if verb == "show" else lambda name: answer_of(host.remove(name))
    with refused(UsageError, "user-is-system-account"):
        ask("nobody")
    with refused(UsageError, "user-missing"):
        ask("Odd_Name")
