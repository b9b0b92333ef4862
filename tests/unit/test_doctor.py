"""What doctor says of a GPU, as the programs inside a container put it; and of a disk and a clock."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import answer_of

from labshell.config import Config
from labshell.doctor import user as doctor
from labshell.doctor.user import Doctor
from labshell.engine import reserve
from labshell.errors import TryAgain
from labshell.host import gpus, machine
from labshell.host.clock import Clock
from labshell.host.gpus import NoGpus
from labshell.model.container import Container
from labshell.model.usage import is_full
from labshell.shown import bytes_of

ALICE = Container("alice", "Running", "alice", 1, "10.83.0.2", gpus="all")


def finding(answer: tuple[int, str], monkeypatch: pytest.MonkeyPatch, host: str | None) -> Any:
    def driver_version() -> str:
        if host is None:
            raise NoGpus("gpu-absent", "This host has no NVIDIA GPU, or its driver is not loaded.")
        return host

    monkeypatch.setattr(gpus, "driver_version", driver_version)
    containers = SimpleNamespace(inside=SimpleNamespace(ask=lambda *_, **__: answer))
    gateway: Any = SimpleNamespace(containers=containers)
    return Doctor(gateway)._gpu(ALICE)


@pytest.mark.parametrize(("message", "part"), [(None, "start"), ("new driver", "new driver"), ("", "try again later")])
def test_a_stopped_container_is_not_to_be_started_during_maintenance(message: str | None, part: str) -> None:
    found = doctor._state(Container("alice", "Stopped", "alice", 1, "10.83.0.2"), message)
    assert found.remedy is not None
    assert part in found.remedy.sentence.format_map(found.remedy.values)
    assert doctor._state(ALICE, message).remedy is None


@pytest.mark.parametrize(
    ("answer", "host", "result", "sentence", "remedy"),
    [
        ((0, "550.54.15\n550.54.15\n"), "550.54.15", "good", "answers inside", None),
        ((0, "535.1\n"), "550.54.15", "bad", "is {inside}, the host's is {host}", "Install version"),
        ((0, "535.1\n"), None, "good", "answers inside", None),
        ((255, "Failed to initialize NVML: Unknown Error\n"), "550.54.15", "bad", "Failed to initialize NVML", "restart"),
        (
            (18, "Failed to initialize NVML: Driver/library version mismatch\n"),
            "550.54.15", "bad", "another version", "Install version",
        ),
        ((127, "sh: nvidia-smi: not found"), "550.54.15", "bad", "does not work", "Install the NVIDIA driver"),
    ],
)  # fmt: skip
def test_each_way_a_gpu_can_be_lost_has_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, str],
    host: str | None,
    result: str,
    sentence: str,
    remedy: str | None,
) -> None:
    found = finding(answer, monkeypatch, host)
    assert found.result == result
    assert sentence in found.finding.sentence
    assert (found.remedy is None) == (remedy is None)
    assert remedy is None or remedy in found.remedy.sentence


def disk(own: tuple[int, int] | None, pool: tuple[int, int], container: Container = ALICE) -> Any:
    containers = SimpleNamespace(disks=SimpleNamespace(use_of=lambda _: own), pools=SimpleNamespace(space=lambda _: pool))
    gateway: Any = SimpleNamespace(containers=containers)
    return Doctor(gateway)._disk(container)


@pytest.mark.parametrize(
    ("space", "result"), [((10, 100), "good"), ((91, 100), "bad"), ((0, 100), "unknown"), ((5, 0), "unknown")]
)
def test_the_labs_storage_is_full_over_ninety_percent(space: tuple[int, int], result: str) -> None:
    found = disk(None, space)
    assert found.result == result
    assert found.remedy is None or "Ask the administrator" in found.remedy.sentence


def test_a_full_disk_counts_as_full_when_its_reserve_has_just_been_deleted() -> None:
    assert is_full((2 << 30) - reserve.WHOLE - (8 << 20), 2 << 30)


@pytest.mark.parametrize(
    ("left", "state", "result", "remedy"),
    [
        (900 << 20, "Running", "good", ""),
        (50 << 20, "Running", "bad", "Find the largest"),
        (1 << 20, "Running", "bad", "do not stop or restart before"),
        (1 << 20, "Stopped", "bad", "Start it: run `start`"),
        (-(1 << 20), "Stopped", "bad", "Start it: run `start`"),
    ],
)
def test_a_container_s_own_full_disk_has_a_remedy_for_its_owner(
    left: int, state: str, result: str, remedy: str
) -> None:
    found = disk(((1 << 30) - left, 1 << 30), (0, 0), replace(ALICE, state=state))
    assert found.result == result
    assert remedy in (found.remedy.sentence if found.remedy else "")


@pytest.mark.parametrize(("failed", "result"), [(True, "bad"), (False, "good")])
def test_a_failed_logind_is_named(failed: bool, result: str) -> None:  # noqa: FBT001
    gateway: Any = SimpleNamespace(containers=SimpleNamespace(inside=SimpleNamespace(logind_failed=lambda _: failed)))
    assert Doctor(gateway)._logind(ALICE).result == result


def test_a_check_that_cannot_be_made_does_not_end_the_others() -> None:
    def away(*_: object, **__: object) -> None:
        raise TryAgain("engine-unreachable", "Cannot connect to LXD; try again in a moment.")

    containers: Any = SimpleNamespace(
        owned=lambda *_: ALICE, disks=SimpleNamespace(use_of=away), bridge=away, get=away,
        inside=SimpleNamespace(ask=away, host_key=away, logind_failed=away),
    )  # fmt: skip
    gateway: Any = SimpleNamespace(
        containers=containers,
        accounts=SimpleNamespace(keys_of=lambda _: [], door=away, last_day=away),
        config=Config(),
        ports=SimpleNamespace(port_of=lambda _: None),
        firewall=None,
        closed=SimpleNamespace(message=None),
    )
    results = {found["check"]: found["result"] for found in answer_of(Doctor(gateway).examine("alice", 1))}
    assert results["Disk"] == results["Host key"] == results["GPU"] == results["Sessions"] == "unknown"
    assert results["Keys"] == results["Port"] == "bad"
    assert results["Account"] == "unknown"
    assert results["Container"] == "good"


@pytest.mark.parametrize(
    ("days", "is_home_safe", "result"),
    [(None, True, "good"), (60, True, "good"), (13, True, "bad"), (None, False, "bad")],
)
def test_an_account_that_ends_soon_is_said_in_time(days: int | None, is_home_safe: bool, result: str) -> None:  # noqa: FBT001
    clock = Clock()
    last_day = clock.today() + datetime.timedelta(days=days) if days else None
    door = SimpleNamespace(is_home_safe=is_home_safe)
    gateway: Any = SimpleNamespace(
        containers=None, clock=clock, accounts=SimpleNamespace(door=lambda _: door, last_day=lambda _: last_day)
    )
    assert Doctor(gateway)._account("alice").result == result


def test_a_clock_that_was_set_back_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OFTEN_WRITTEN", (tmp_path, tmp_path / "missing"))
    assert not machine.clock_is_behind()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert machine.clock_is_behind()


@pytest.mark.parametrize(
    ("size", "count"),
    [("200GiB", 200 << 30), ("5MB", 5_000_000), ("1024", 1024), ("", None), ("10%", None), ("-1GiB", None)],
)
def test_sizes_are_read_as_the_engine_writes_them(size: str, count: int | None) -> None:
    assert bytes_of(size) == count
