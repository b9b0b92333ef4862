"""drain and undrain: several at once, counted, ended by undrain, and brought back."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import answer_of, lab_of

from labshell.config import Config, Paths
from labshell.engine.records import Usage
from labshell.errors import LabshellError
from labshell.model.container import Container
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.maintenance import Maintenance

NAMES = ("ada", "bob", "carol", "dora")


class Host:
    """Containers that a maintenance stops; `refusing` do not stop, and `undrain_at` stops undrain the host."""

    def __init__(self, folder: Path) -> None:
        self.found = {name: Container(name, "Running", name, 30000, None) for name in NAMES}
        self.refusing: set[str] = set()
        self.undrain_at = 0
        self.at_once = self.most_at_once = self.stops = 0
        self.lock = threading.Lock()
        self.both = threading.Barrier(2, timeout=20)
        config = Config(paths=Paths(state=folder, run=folder), parallel_starts=2)
        self.lifecycle = self
        ports, firewall = SimpleNamespace(ensure=lambda user: None), SimpleNamespace(forward=lambda container: None)
        self.lab = lab_of(config, containers=self, ports=ports, firewall=firewall)
        self.maintenance = Maintenance(self.lab)

    def all_with_usage(self) -> list[tuple[Container, Usage]]:
        return [(item, Usage(None, None, None, None)) for item in self.found.values()]

    def get(self, name: str) -> Container | None:
        return self.found.get(name)

    def stop(self, name: str, seconds: int) -> None:
        self.both.wait()  # with one more that is being stopped
        with self.lock:
            self.stops += 1
            if self.undrain_at == self.stops:
                self.lab.closed.open()
        self.both.wait()
        if name in self.refusing:
            raise LabshellError("engine-refused", "It does not stop.")
        self.found[name] = replace(self.found[name], state="Stopped")

    def bring_up(self, container: Container) -> Any:
        self.found[container.name] = replace(container, state="Running")
        return iter(())

    def drain(self) -> dict[str, Any]:
        return dict(answer_of(self.maintenance.drain("new driver", stop=True, snapshot=False, plan=False)))

    def running(self) -> list[str]:
        return [name for name in NAMES if self.found[name].state == "Running"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    tmp_path.chmod(0o755)
    host = Host(tmp_path)
    monkeypatch.setattr(Lifecycle, "ensure_running", lambda _, container: host.bring_up(container))
    return host


def test_several_are_stopped_at_once_and_counted(host: Host) -> None:
    steps = host.maintenance.drain("new driver", stop=True, snapshot=False, plan=False)
    said = [step.sentence.format_map(step.values) for step in steps]
    assert said == [f"Stopped {count} of 4" for count in (1, 2, 3, 4)]
    assert host.running() == []


def test_undrain_brings_back_what_drain_stopped_and_nothing_else(host: Host) -> None:
    host.found["dora"] = replace(host.found["dora"], state="Stopped")  # by her own wish
    host.found["carol"] = replace(host.found["carol"], state="Stopped")
    assert sorted(host.drain()["stopped"]) == ["ada", "bob"]
    assert answer_of(host.maintenance.undrain())["stopped"] == ["ada", "bob"]
    assert host.running() == []
    assert sorted(answer_of(host.maintenance.undrain(start=True))["started"]) == ["ada", "bob"]
    assert host.running() == ["ada", "bob"]
    assert host.lab.closed.message is None
    assert answer_of(host.maintenance.undrain(start=True))["started"] == []


def test_what_an_earlier_maintenance_stopped_is_not_brought_back_by_a_later_one(host: Host) -> None:
    host.drain()
    answer_of(host.maintenance.undrain())
    for name in ("ada", "bob"):
        host.found[name] = replace(host.found[name], state="Running")
    host.drain()
    assert sorted(answer_of(host.maintenance.undrain(start=True))["started"]) == ["ada", "bob"]


def test_a_second_drain_of_the_same_maintenance_forgets_nothing(host: Host) -> None:
    host.drain()
    host.drain()
    assert sorted(answer_of(host.maintenance.undrain(start=True))["started"]) == [*NAMES]


def test_one_that_does_not_stop_is_named_and_the_others_are_stopped(host: Host) -> None:
    host.refusing = {"bob"}
    answer = host.drain()
    assert answer["failed"] == [{"name": "bob", "why": "It does not stop."}]
    assert host.running() == ["bob"]


def test_undrain_ends_it(host: Host) -> None:
    host.undrain_at = 1
    answer = host.drain()
    assert answer["is_ended_early"]
    assert len(answer["stopped"]) == 2
    assert len(host.running()) == 2
