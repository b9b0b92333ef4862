"""Starting and stopping as an administrator: one container, or all of them for a new kernel or driver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from labshell import shown
from labshell.engine.records import Usage
from labshell.errors import LabshellError, UsageError
from labshell.model.container import Container
from labshell.model.names import INSTANCE, existing_name
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.recovery import Recovery
from labshell.operations.steps import Progress, Steps
from labshell.operations.user_ports import UserPorts
from labshell.wire import admin

log = logging.getLogger(__name__)


class Maintenance:
    """What an administrator starts and stops on one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._user_ports = UserPorts(lab)
        self._recovery = Recovery(lab)
        self._containers = lab.containers
        self._remembering = threading.Lock()

    def drain(self, message: str, *, stop: bool, snapshot: bool, plan: bool) -> Steps[admin.Drained]:
        """Refuse new starts with `message`; on request take snapshots and stop what runs, cleanly.

        Answers with what runs now: whose, since when, how busy, with which GPUs. `plan` changes nothing.
        """
        closed = self._lab.closed
        if not plan:
            if closed.message is None:  # what an earlier maintenance stopped is no matter of this one
                closed.remember_stopped(())
            closed.close(message)
        running = [
            (item, used)
            for item, used in self._containers.all_with_usage()
            if item.state == "Running" and item.is_in_use
        ]
        names, now = [item.name for item, _ in running] if stop and not plan else [], self._lab.clock.seconds()
        rows = [_row(item, used, now) for item, used in running]
        if not names:
            return {"containers": rows, "failed": [], "stopped": []}
        done = yield from self._all(names, "Stopped", lambda name: self._stop(name, snapshot=snapshot))
        is_ended_early = closed.message is None  # by an undrain
        return {"containers": rows, "failed": done.failed, "stopped": done.names, "is_ended_early": is_ended_early}

    def _all(self, names: list[str], word: str, act: Callable[[str], bool]) -> Steps[_Done]:
        """Do `act`, which says whether it did anything, to as many at once as may start at once."""
        done = _Done()
        with ThreadPoolExecutor(self._lab.config.parallel_starts) as pool:
            waiting = {pool.submit(act, name): name for name in names}
            for count, future in enumerate(as_completed(waiting), start=1):
                name = waiting[future]
                try:
                    if future.result():
                        done.names.append(name)
                except LabshellError as error:
                    done.failed.append({"name": name, "why": str(error)})
                yield Progress("{word} {count} of {all}", {"word": word, "count": str(count), "all": str(len(names))})
        return done

    def undrain(self, *, start: bool = False) -> Steps[admin.Undrained]:
        """Let containers start again; with `start`, start those that drain has stopped."""
        closed = self._lab.closed
        closed.open()
        stopped = [name for name in closed.stopped if self._is_stopped(name)]
        if not start or not stopped:
            return {"stopped": stopped, "started": [], "failed": []}
        done = yield from self._all(stopped, "Started", self._bring_back)
        closed.remember_stopped(item["name"] for item in done.failed)
        return {"stopped": [item["name"] for item in done.failed], "started": done.names, "failed": done.failed}

    def _is_stopped(self, name: str) -> bool:
        container = self._containers.get(name)
        return container is not None and container.state == "Stopped"

    def _bring_back(self, name: str) -> bool:
        for _ in self.start(name):
            pass
        return True

    def start(self, name: str, *, dry_run: bool = False) -> Steps[admin.ContainerState]:
        """Start the container of a user or a service, with its forwards."""
        container = self._existing(name)
        if dry_run:
            return _plan(container, "start", is_so=container.state == "Running")
        yield from self._recovery.recover_first(name)
        with self._lab.locks.held(name):
            container = self._existing(name)
            if (yield from self._lifecycle.ensure_running(container)):
                container = self._existing(name)
            if container.is_service:
                self._lab.firewall.forward(container)
            else:
                self._user_ports.make_reachable(container)
        return {"name": name, "state": container.state.lower()}

    def stop(self, name: str, *, force: bool, dry_run: bool = False) -> Steps[admin.ContainerState]:
        with self._lab.locks.held(name):
            container = self._existing(name)
            if dry_run:
                return _plan(container, "stop", is_so=container.state == "Stopped", how=" at once" if force else "")
            yield Progress("Stopping {name}", {"name": name})
            self._lifecycle.stop_container(container, force=force)
        return {"name": name, "state": self._existing(name).state.lower()}

    def _existing(self, name: str) -> Container:
        existing_name(name)
        container = self._containers.get(name) if INSTANCE.fullmatch(name) else None
        if container is None or not container.is_in_use:
            raise UsageError("user-or-service-missing", "There is no user or service {name}.", name=name)
        return container

    def _stop(self, name: str, *, snapshot: bool) -> bool:
        """Stop one for the maintenance; whether it was: undrain may have ended that meanwhile."""
        closed = self._lab.closed
        if closed.message is None:
            return False
        with self._lab.locks.held(name):
            if snapshot:
                now = self._lab.clock.now()
                self._containers.snapshots.take(name, f"before-maintenance-{now:%Y%m%d-%H%M}")
            self._containers.lifecycle.stop(name, self._lab.config.stop_timeout_seconds)
        with self._remembering:
            closed.remember_stopped({*closed.stopped, name})
        return True


@dataclass
class _Done:
    """What became of several containers."""

    names: list[str] = field(default_factory=list)
    failed: list[admin.Failure] = field(default_factory=list)


def _plan(item: Container, verb: str, *, is_so: bool, how: str = "") -> admin.ContainerState:
    """What start() and stop() would do."""
    state = item.state.lower()
    would = f"Would {verb} the container {item.name}{how} ({state} now)."
    would = f"{item.name} is {state} already." if is_so else would
    return {"name": item.name, "state": state, "would": [would]}


def _row(item: Container, used: Usage, now: float) -> admin.Container:
    return {
        "name": item.name,
        "kind": "service" if item.is_service else "user",
        "started": shown.rfc3339(item.started),
        "processes": used.processes,
        "memory": used.memory,
        "gpus": item.gpus,
        "held_for": hold.reason if (hold := item.hold_at(now)) else None,
    }
