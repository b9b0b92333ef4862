"""What the verbs rely on in `containers`, asserted of the stand-in and of the real engine alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import FakeContainers
from testhost import Host

from labshell.engine.client import Engine
from labshell.engine.containers import Containers
from labshell.engine.network import Network
from labshell.errors import LabshellError, NoContainer, UsageError

pytestmark = pytest.mark.root
NAME, OTHER, UID = "contract", "contract--new", 59998


@pytest.fixture(params=["stand-in", "engine"])
def containers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "stand-in":
        yield FakeContainers()
        return
    host: Host = request.getfixturevalue("host")
    engine = Engine(f"/proc/{host.pid}/root/var/lib/lxd/unix.socket")
    real = Containers(engine, Network(engine, "lxdbr0"), "", tmp_path)
    yield real
    for name in (NAME, OTHER):
        with contextlib.suppress(LabshellError):
            real.lifecycle.delete(name)


def make(containers: Any, name: str = NAME, address: str = "10.83.0.240") -> None:
    containers.clones.make("template", name, NAME, UID, address)


def test_a_clone_is_stopped_owned_pinned_and_not_yet_somebodys(containers: Any) -> None:
    make(containers)
    made = containers.owned(NAME, UID)
    assert (made.state, made.address, made.is_prepared, made.kept, made.gpus) == (
        "Stopped",
        "10.83.0.240",
        False,
        "",
        "none",
    )
    assert containers.owned_with_usage(NAME, UID)[0] == made
    assert "10.83.0.240" in containers.addresses.taken()
    with pytest.raises(NoContainer):
        containers.owned(NAME, UID + 1)
    with pytest.raises(NoContainer):
        containers.owned_with_usage(NAME, UID + 1)
    with pytest.raises(UsageError):
        make(containers)


def test_what_is_not_there_is_none_and_can_be_deleted_but_not_changed(containers: Any) -> None:
    assert containers.get(NAME) is None
    containers.lifecycle.delete(NAME)
    with pytest.raises(NoContainer):
        containers.marks.set_kept(NAME, OTHER)


def test_two_containers_change_places_by_names_and_addresses(containers: Any) -> None:
    make(containers)
    make(containers, OTHER, "10.83.0.241")
    containers.marks.set_prepared(OTHER)
    containers.addresses.take_off_network(NAME)
    containers.lifecycle.rename(NAME, f"{NAME}--20260101-000000")
    containers.addresses.assign(OTHER, "10.83.0.240")
    containers.marks.set_kept(OTHER, f"{NAME}--20260101-000000")
    containers.lifecycle.rename(OTHER, NAME)
    moved_in = containers.owned(NAME, UID)
    assert (moved_in.address, moved_in.is_prepared, moved_in.kept) == (
        "10.83.0.240",
        True,
        f"{NAME}--20260101-000000",
    )
    moved_out = containers.get(moved_in.kept)
    assert (moved_out.address, moved_out.is_prepared, moved_out.owner) == (None, False, NAME)
    containers.lifecycle.start(NAME, 60)
    assert containers.get(NAME).state == "Running"
    containers.lifecycle.delete(moved_in.kept)
    assert containers.get(moved_in.kept) is None


def test_a_restore_takes_a_mark_away_that_was_set_before_it(containers: Any) -> None:
    make(containers)
    containers.snapshots.take(NAME, "kept")
    settings = containers.configuration.read(NAME)
    containers.marks.set_restoring(NAME, "token")
    assert containers.marks.is_restoring(NAME, "token")
    containers.snapshots.restore(NAME, "kept")
    assert not containers.marks.is_restoring(NAME, "token")
    containers.configuration.put_back(NAME, settings)
    assert [snapshot.name for snapshot in containers.snapshots.of(NAME)] == ["kept"]
    assert containers.owned(NAME, UID).address == "10.83.0.240"
    containers.snapshots.delete(NAME, "kept")
    assert containers.snapshots.of(NAME) == []


def test_files_are_put_listed_and_deleted(containers: Any) -> None:
    make(containers)
    containers.inside.put_file(NAME, "/root/note", b"text")
    assert "note" in containers.inside.list_folder(NAME, "/root")
    assert containers.inside.read_file(NAME, "/root/note", 3) == b"tex"
    containers.inside.delete_file(NAME, "/root/note")
    containers.inside.delete_file(NAME, "/root/note")
    assert "note" not in containers.inside.list_folder(NAME, "/root")
    assert containers.inside.read_file(NAME, "/root/note", 3) is None
    assert containers.inside.list_folder(NAME, "/nowhere") == []


def test_marked_templates_are_known(containers: Any) -> None:
    make(containers)
    assert containers.templates() == ["template"]
