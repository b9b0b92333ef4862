"""Stand-ins for effect modules, held to the real ones by the tests that run on both.

See tests/system/test_containers_contract.py: what is asserted there of the engine is asserted of these.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labshell.config import Config
from labshell.engine.errors import DiskFull
from labshell.engine.inside import Entry
from labshell.engine.network import Bridge
from labshell.engine.records import Usage
from labshell.errors import LabshellError, NoContainer, UsageError
from labshell.host.clock import Clock
from labshell.model.container import Container
from labshell.model.snapshots import Snapshot
from labshell.operations.lab import Lab, assemble
from labshell.operations.steps import Steps


def answer_of(steps: Steps[Any]) -> Any:
    """What a verb answers in the end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


class SetClock(Clock):
    """A clock that somebody sets."""

    def __init__(self, read: Callable[[], datetime.datetime]) -> None:
        self._read = read

    def seconds(self) -> float:
        return self._read().timestamp()


def lab_of(
    config: Config,
    *,
    accounts: Any = None,
    containers: Any = None,
    ports: Any = None,
    firewall: Any = None,
    clock: Clock | None = None,
) -> Lab:
    """A lab over these stand-ins."""
    return assemble(config, None, accounts, containers, ports, firewall, clock or Clock())  # type: ignore[arg-type]


class Crash(BaseException):
    """The daemon is killed here."""


@dataclass
class Instance:
    """One container of the stand-in. `files` is all of its data."""

    owner: str
    uid: int
    address: str | None
    state: str = "Stopped"
    is_template: bool = False
    is_prepared: bool = False
    kept: str = ""
    host_key: str = ""
    limits: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    snapshots: dict[str, Instance] = field(default_factory=dict)
    restoring: str = ""


class FakeContainers:
    """Containers in memory. `crash_at` kills the caller before the call of that number that changes something."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {"template": Instance("", 0, None, is_template=True)}
        self.changes = 0
        self.crash_at: int | None = None
        self.refuse_at: int | None = None  # the call that the engine refuses
        self.refusal: type[LabshellError] = LabshellError
        self.full: set[str] = set()  # whose disk takes nothing more: no mark
        # The methods of all parts but the snapshots are below.
        self.inside = self.network = self.pools = self.addresses = self.clones = self
        self.configuration = self.disks = self.lifecycle = self.marks = self
        self.snapshots = FakeSnapshots(self)
        self.is_labs_own = False

    def change(self) -> None:
        if self.changes == self.crash_at:
            self.crash_at = None
            raise Crash
        self.changes += 1
        if self.refuse_at is not None and self.changes > self.refuse_at:
            self.refuse_at = None
            raise self.refusal("engine-refused", "The engine refused.")

    def existing(self, name: str) -> Instance:
        if name not in self.instances:
            raise NoContainer("container-missing", "There is no container {name}.", name=name)
        return self.instances[name]

    def get(self, name: str) -> Container | None:
        found = self.instances.get(name)
        if found is None:
            return None
        return Container(
            name=name, state=found.state, owner=found.owner or None, uid=found.uid, address=found.address,
            is_template=found.is_template, is_prepared=found.is_prepared, kept=found.kept, host_key=found.host_key,
            config=dict(found.limits), disk_limit=found.limits.get("disk", ""),
        )  # fmt: skip

    def owned(self, user: str, uid: int) -> Container:
        container = self.get(user)
        if container is None or not container.belongs_to(user, uid):
            raise NoContainer("container-not-assigned", "You have no container on this machine yet; ask the administrator for one.")
        return container

    def owned_with_usage(self, user: str, uid: int) -> tuple[Container, Usage]:
        container = self.owned(user, uid)
        return container, self.usage(container)

    def all(self) -> list[Container]:
        return [container for name in self.instances if (container := self.get(name))]

    def templates(self) -> list[str]:
        return [name for name, item in self.instances.items() if item.is_template]

    def bridge(self) -> Bridge:
        return Bridge("lxdbr0", "10.83.0.1/24")

    def taken(self) -> set[str]:
        return {item.address for item in self.instances.values() if item.address}

    def usage(self, container: Container) -> Usage:
        return Usage(None, None, None, None)

    def held_by(self, container: Container) -> int | None:
        return None

    def try_write(self, name: str, action: str = "be changed") -> None:
        if name in self.full:
            raise DiskFull("container-disk-full", "The disk is full, so it cannot {action}.", action=action)

    def check_limit(self, name: str, size: str, snapshot: str = "") -> None:
        self.existing(name)

    def is_full(self, pool: str) -> bool:
        return False

    def make(self, template: str, name: str, user: str, uid: int, address: str) -> None:
        self.change()
        if name in self.instances:
            raise UsageError("container-exists", "There is a container {name} already.", name=name)
        files = dict(self.existing(template).files)
        self.instances[name] = Instance(user, uid, address, files=files)

    def set_host_key(self, name: str, host_key: str) -> None:
        self.change()
        self.existing(name).host_key = host_key

    def set_prepared(self, name: str) -> None:
        self.change()
        self.existing(name).is_prepared = True

    def set_kept(self, name: str, kept: str) -> None:
        self.change()
        self.existing(name).kept = kept

    def assign(self, name: str, address: str | None) -> None:
        self.change()
        self.existing(name).address = address

    def take_off_network(self, name: str) -> None:
        self.change()
        self.existing(name).address = None

    def take_over(self, source: str, target: str, *, only: bool) -> None:
        self.change()
        old, new = self.existing(source), self.existing(target)
        new.limits, new.kept = dict(old.limits), old.kept

    def rename(self, name: str, new_name: str) -> None:
        self.change()
        if self.existing(name).state != "Stopped":
            raise AssertionError("the engine renames stopped containers only")
        if new_name in self.instances:
            raise UsageError("container-exists", "There is a container {name} already.", name=new_name)
        self.instances[new_name] = self.instances.pop(name)

    def wait_until_idle(self, name: str) -> None:
        pass

    def start(self, name: str, timeout_seconds: int) -> None:
        self.change()
        address = self.existing(name).address
        if address and [item.address for item in self.instances.values()].count(address) > 1:
            raise AssertionError("two containers with one address: neither starts")
        self.existing(name).state = "Running"

    def stop(self, name: str, timeout_seconds: int, *, force: bool = False) -> None:
        self.change()
        if name in self.instances:
            self.instances[name].state = "Stopped"

    def delete(self, name: str) -> None:
        self.change()
        self.instances.pop(name, None)

    def entry(self, name: str, path: str) -> Entry | None:
        files = self.existing(name).files
        if path in files:
            return Entry("file", 1000, 1000)
        return Entry("directory", 1000, 1000) if any(file.startswith(f"{path}/") for file in files) else None

    def put_folder(self, name: str, path: str, mode: int, owner: Entry) -> None:
        self.change()
        self.delete_file(name, path)

    def put_file(self, name: str, path: str, content: bytes, mode: int = 0o644, owner: Entry | None = None) -> None:
        self.change()
        self.existing(name).files[path] = content

    def delete_file(self, name: str, path: str) -> None:
        self.existing(name).files.pop(path, None)

    def read_file(self, name: str, path: str, most: int) -> bytes | None:
        content = self.existing(name).files.get(path)
        return content[:most] if content is not None else None

    def list_folder(self, name: str, path: str) -> list[str]:
        return [file.rpartition("/")[2] for file in self.existing(name).files if file.startswith(f"{path}/")]

    def run(self, name: str, argv: list[str], timeout_seconds: int = 60) -> tuple[int, str]:
        self.change()
        if self.existing(name).state != "Running":
            raise AssertionError("nothing runs in a stopped container")
        return 0, ""

    ask = run

    def read(self, name: str) -> dict[str, Any]:
        found = self.existing(name)
        return {"limits": found.limits, "kept": found.kept}

    def apply(self, name: str, settings: Mapping[str, str]) -> None:
        self.change()
        self.existing(name).limits.update(settings)

    def put_back(self, name: str, settings: Mapping[str, Any]) -> None:
        self.change()
        found = self.existing(name)
        found.limits, found.kept, found.restoring = dict(settings["limits"]), settings["kept"], ""

    def set_restoring(self, name: str, token: str) -> None:
        self.change()
        if name in self.full:
            raise DiskFull("container-disk-full", "The disk of the container is full.")
        self.existing(name).restoring = token

    def is_restoring(self, name: str, token: str) -> bool:
        return self.existing(name).restoring == token


class FakeSnapshots:
    """Snapshots in the same memory."""

    def __init__(self, lab: FakeContainers) -> None:
        self._lab = lab

    def of(self, name: str) -> list[Snapshot]:
        return [Snapshot(label, "2026-11-23T10:00:00Z") for label in self._lab.existing(name).snapshots]

    def take(self, name: str, label: str) -> None:
        self._lab.try_write(name)
        self._lab.change()
        found = self._lab.existing(name)
        found.snapshots[label] = copy.deepcopy(found)

    def delete(self, name: str, label: str) -> None:
        self._lab.change()
        self._lab.existing(name).snapshots.pop(label, None)

    def restore(self, name: str, label: str) -> None:
        self._lab.change()
        found = self._lab.existing(name)
        taken = copy.deepcopy(found.snapshots[label])
        taken.snapshots, taken.state = found.snapshots, found.state
        self._lab.instances[name] = taken
