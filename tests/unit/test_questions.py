"""How often a command asks the engine for a container: once, and again only after it has changed it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import FakeContainers, Instance, answer_of, lab_of

from labshell.config import Config, Paths
from labshell.model.container import Container
from labshell.model.keys import PublicKey
from labshell.operations import lifecycle, user_ports
from labshell.operations.add_user import AddUser, NewUser
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.user_forwards import UserForwards

KEY = PublicKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIG5vYm9keQ==")


class Containers(FakeContainers):
    """The stand-in, which notes after how many changes each question about one container comes."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def get(self, name: str) -> Container | None:
        self.asked.append(self.changes)
        return super().get(name)

    def all(self) -> list[Container]:
        return [found for name in self.instances if (found := super(Containers, self).get(name))]

    def check_template(self, name: str) -> None:
        self.existing(name)


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> Containers:
    for module in (lifecycle, user_ports):
        monkeypatch.setattr(module, "ssh_answers", lambda *_, **__: True)
    containers = Containers()
    containers.instances["alice"] = Instance("alice", 30000, "10.83.0.2", state="Running", is_prepared=True)
    return containers


@pytest.fixture
def lab(containers: Containers, tmp_path: Path) -> Lab:
    """A host with alice. Whatever makes rules is given the container and asks for none."""
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    uids, ports = {"alice": 30000}, {"alice": 20000}
    accounts = SimpleNamespace(
        uid_of=uids.get, is_locked=lambda user: False, keys_of=lambda user: [KEY], last_login=lambda user: None,
        give_up=uids.pop,
        set_keys=lambda user, keys: None, note_login=lambda user: None,
        ensure=lambda user, marked: uids.setdefault(user, 30001),
    )  # fmt: skip
    registry = SimpleNamespace(
        port_of=ports.get, block=lambda port: range(port, port + 10), busy_beside=lambda own: set(),
        ensure=lambda user, port=None: ports.setdefault(user, 20010), give_up=ports.pop,
    )  # fmt: skip
    firewall = SimpleNamespace(
        forward=lambda container: None, has_live_rules=lambda *about: True, check_source=lambda source: None,
        address="10.83.0.1",
    )  # fmt: skip
    firewall.forward_user = lambda user: containers.get(user)
    config = Config(paths=Paths(state=tmp_path / "state", run=tmp_path / "run"))
    return lab_of(config, accounts=accounts, containers=containers, ports=registry, firewall=firewall)


def test_a_login_asks_once(lab: Lab, containers: Containers) -> None:
    assert answer_of(Lifecycle(lab).start("alice", 30000))["state"] == "running"
    assert containers.asked == [0]


def test_a_login_that_starts_the_container_asks_once_more(lab: Lab, containers: Containers) -> None:
    containers.instances["alice"].state = "Stopped"
    assert answer_of(Lifecycle(lab).start("alice", 30000))["state"] == "running"
    first, second = containers.asked
    assert first == 0 < second == containers.changes


def test_a_forward_more_and_one_less_ask_once_each(lab: Lab, containers: Containers) -> None:
    given: list[Any] = []
    containers.set_forwards = lambda name, forwards: given.append(forwards)  # type: ignore[attr-defined]
    containers.first_process = lambda name: None  # type: ignore[attr-defined]
    UserForwards(lab).add("alice", 30000, 8888, "", "", None)
    assert [own.target for own in given[0]] == [8888]
    assert containers.asked == [0]


def test_add_user_asks_again_only_after_it_has_changed_the_container(lab: Lab, containers: Containers) -> None:
    new = NewUser("bob", (KEY,), "template", None, {"cpu": "8", "memory": "64GiB", "disk": "", "processes": "4096"})
    assert answer_of(AddUser(lab).add(new))["user"]["state"] == "running"
    assert sorted(set(containers.asked)) == containers.asked
    assert len(containers.asked) == 3  # before anything is done, before it is started, and for the answer
