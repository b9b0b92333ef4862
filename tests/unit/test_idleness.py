"""What counts as use, and when an idle container is stopped."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import FakeContainers, Instance, SetClock, answer_of, lab_of

from labshell.config import Config, Paths
from labshell.errors import UsageError
from labshell.host import machine
from labshell.host.activity import Activity
from labshell.model import idleness
from labshell.model.container import Container, Hold
from labshell.model.idleness import DAY, Sample
from labshell.operations import host_accounts
from labshell.operations.idle_stop import IdleStop, Seen

QUIET = Sample(1000.0, 50.0, 10_000, is_occupied=False)
LATER = replace(QUIET, moment=1300.0)


@pytest.mark.parametrize(
    ("now", "answer"),
    [
        (LATER, False),
        (replace(LATER, cpu_seconds=50.3), False),
        (replace(LATER, cpu_seconds=53.0), True),
        (replace(LATER, network_bytes=60_000), False),
        (replace(LATER, network_bytes=1_000_000), True),
        (replace(LATER, is_occupied=True), True),
        (replace(LATER, cpu_seconds=1.0), True),
        (replace(LATER, network_bytes=0), True),
        (replace(LATER, moment=1000.0), False),
    ],
    ids=["quiet", "a little processor", "processor", "a little network", "network", "somebody there", "restarted",
         "counters began again", "no time between"],
)  # fmt: skip
def test_what_counts_as_use(now: Sample, answer: object) -> None:
    assert idleness.is_busy(QUIET, now) is answer


def test_when_it_is_stopped() -> None:
    assert idleness.stops_at(1000.0, 0, None) is None
    assert idleness.stops_at(1000.0, 7, None) == 1000.0 + 7 * DAY
    assert idleness.stops_at(1000.0, 7, Hold(2000.0)) == 1000.0 + 7 * DAY
    assert idleness.stops_at(1000.0, 7, Hold(9 * DAY)) == 9 * DAY


def test_a_hold_has_an_end_and_a_reason_that_can_be_shown() -> None:
    assert idleness.hold_for("3d", "training \x1b[31mbig\x07", 1000.0, 30) == Hold(
        1000 + 3 * DAY, r"training \x1b[31mbig\x07"
    )
    for lasting, reason in (("31d", ""), ("soon", ""), ("0d", ""), ("", ""), ("3d", "x" * 81)):
        with pytest.raises(UsageError):
            idleness.hold_for(lasting, reason, 1000.0, 30)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": "b"}', b"\xff"])
def test_a_damaged_file_of_activity_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "activity.json"
    path.write_bytes(content)
    activity = Activity(path)
    assert activity.read() == {}
    activity.write({"alice": 12.5})
    assert activity.read() == {"alice": 12}


def test_a_folder_in_the_place_of_the_file_of_activity_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "activity.json").mkdir()
    assert Activity(tmp_path / "activity.json").read() == {}


@pytest.mark.parametrize("come", ["nobody", "a hold", "a login", "a stop", "a removal"])
def test_whoever_comes_between_the_look_and_the_stop_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, come: str
) -> None:
    """With many to stop, minutes go by between the two."""
    containers = FakeContainers()
    containers.instances["ada"] = Instance("ada", 30000, None, state="Running")
    config = Config(paths=Paths(state=tmp_path, run=tmp_path), idle_stop_days=7)
    idle_stop = IdleStop(lab_of(config, containers=containers))
    seen = [Seen(containers.all()[-1], last_active=0, due=1, is_known=True)]
    monkeypatch.setattr(idle_stop, "look", lambda: seen)
    monkeypatch.setattr(idle_stop, "_occupied", lambda: {"ada"} if come == "a login" else set())
    if come == "a hold":
        monkeypatch.setattr(containers, "get", lambda _: replace(seen[0].container, hold=Hold(9e9)))
    if come == "a stop":
        containers.instances["ada"].state = "Stopped"
    if come == "a removal":
        del containers.instances["ada"]
    [row] = answer_of(idle_stop.stop_idle())
    assert row["was_stopped"] == (come == "nobody")


def test_a_hold_that_is_over_is_none() -> None:
    container = Container("ada", "Running", "ada", 30000, None, hold=Hold(100.0, "waiting"))
    assert container.hold_at(99.0) == Hold(100.0, "waiting")
    assert container.hold_at(100.0) is None


def test_whoever_has_expired_is_logged_out_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who came in before: sshd asks for the last day at the door only."""
    now = datetime.datetime(2031, 1, 1, 12).astimezone()
    today = now.date()
    days = {
        "over": today - datetime.timedelta(days=1),
        "last": today,
        "never": None,
        "gone": datetime.date(2030, 1, 1),
    }
    found = [
        Container(name, "Running", name, number, None, expires=day) for number, (name, day) in enumerate(days.items())
    ]
    containers: Any = SimpleNamespace(all=lambda: [*found, Container("over--old", "Stopped", "over", 7, None)])
    ended: list[int] = []
    monkeypatch.setattr(machine, "people_at_work", lambda: ({0, 1, 2, 99}, set()))
    monkeypatch.setattr(host_accounts, "end_processes", ended.append)
    host_accounts.end_expired(lab_of(Config(), containers=containers, clock=SetClock(lambda: now)))
    assert ended == [0]
