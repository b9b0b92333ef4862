"""Starting and stopping as an administrator: one container, or all of them for a new kernel or driver."""

from __future__ import annotations

import datetime
import logging
import time
from typing import Any

from labshell import policy, shown
from labshell.errors import LabshellError, UsageError
from labshell.gateway import Gateway, Progress, Steps

log = logging.getLogger(__name__)


class Maintenance:
    """What an administrator starts and stops on one host."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._containers = gateway.containers

    def drain(self, message: str, *, stop: bool, snapshot: bool, plan: bool) -> Steps[dict[str, Any]]:
        """Refuse new starts with `message`; on request keep everybody's state and stop what runs, cleanly.

        Answers with what runs now: whose, since when, how busy, with which GPUs. `plan` changes nothing.
        """
        if not plan:
            self._gateway.closed.close(message)
        running = [
            (item, used)
            for item, used in self._containers.all_with_usage()
            if item.state == "Running" and (item.owner == item.name or item.is_service)
        ]
        failed = []
        for item, _ in running if stop and not plan else ():
            yield Progress("Stopping {name}", {"name": item.name})
            try:
                self._stop(item, snapshot=snapshot)
            except LabshellError as error:
                failed.append({"name": item.name, "why": str(error)})
        return {"containers": [_row(item, used) for item, used in running], "failed": failed}

    def undrain(self) -> dict[str, Any]:
        self._gateway.closed.open()
        return {}

    def start(self, name: str, *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Start one container of the lab's, a person's or a service, with its forwards."""
        container = self._existing(name)
        if dry_run:
            return _plan(container, "start", is_so=container.state == "Running")
        yield from self._gateway.settle_first(name)
        with self._gateway.locks.held(name):
            container = self._existing(name)
            yield from self._gateway.ensure_running(container)
            if container.is_service:
                self._gateway.firewall.forward_user(name)
            else:
                self._gateway.make_reachable(name)
        return {"name": name, "state": self._existing(name).state.lower()}

    def stop(self, name: str, *, force: bool, dry_run: bool = False) -> Steps[dict[str, Any]]:
        with self._gateway.locks.held(name):
            container = self._existing(name)
            if dry_run:
                return _plan(container, "stop", is_so=container.state == "Stopped", how=" at once" if force else "")
            yield Progress("Stopping {name}", {"name": name})
            self._containers.stop(name, self._gateway.config.stop_timeout_seconds, force=force)
        return {"name": name, "state": self._existing(name).state.lower()}

    def _existing(self, name: str) -> policy.Container:
        container = self._containers.get(policy.existing_name(name))
        if container is None or not (container.owner == name or container.is_service):
            raise UsageError("There is no user or service {name}.", name=name)
        return container

    def _stop(self, item: policy.Container, *, snapshot: bool) -> None:
        with self._gateway.locks.held(item.name):
            if snapshot:
                now = datetime.datetime.now(datetime.timezone.utc)
                self._containers.take_snapshot(item.name, f"before-maintenance-{now:%Y%m%d-%H%M}")
            self._containers.stop(item.name, self._gateway.config.stop_timeout_seconds)


def _plan(item: policy.Container, verb: str, *, is_so: bool, how: str = "") -> dict[str, Any]:
    """What start() and stop() would do."""
    state = item.state.lower()
    would = f"Would {verb} the container {item.name}{how} ({state} now)."
    would = f"{item.name} is {state} already." if is_so else would
    return {"name": item.name, "state": state, "would": [would]}


def _row(item: policy.Container, used: Any) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": "service" if item.is_service else "user",
        "started": shown.rfc3339(item.started),
        "processes": used.processes,
        "memory": used.memory,
        "gpus": item.gpus,
        "held_for": hold.reason if (hold := item.hold_at(time.time())) else None,
    }
