"""The report on one container, with which every verb of its user's answers."""

from __future__ import annotations

from labshell import shown
from labshell.engine.records import Usage
from labshell.host import machine
from labshell.model import idleness, keys
from labshell.model.container import Container
from labshell.model.names import moment_of_kept
from labshell.model.usage import is_full
from labshell.operations.lab import Lab
from labshell.operations.user_ports import UserPorts
from labshell.wire.gateway import ContainerReport


class Reports:
    """The reports on the containers of one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._config = lab.config
        self._containers = lab.containers
        self._user_ports = UserPorts(lab)

    def status(self, user: str, uid: int) -> ContainerReport:
        """Everything the card shows; starts nothing."""
        return self.of(*self._containers.owned_with_usage(user, uid))

    def of(self, container: Container, usage: Usage) -> ContainerReport:
        """The answer of every verb that reports."""
        running = container.state in ("Running", "Frozen")
        load = machine.load()
        port = self._user_ports.of(container.name)
        last_active = self._lab.activity.read().get(container.name)
        now = self._lab.clock.seconds()
        hold = container.hold_at(now)
        due = idleness.stops_at(last_active, self._config.idle_stop_days, container.hold) if last_active else None
        is_near = running and due is not None and due - now < idleness.WARN_SECONDS
        fingerprint = keys.parse(container.host_key).fingerprint if container.host_key else None
        return {
            "user": container.name,
            "host": self._config.shown_hostname,
            "host_port": self._config.ssh_port,
            "menu_idle_minutes": self._config.menu_idle_minutes,
            "state": container.state.lower(),
            "address": container.address,
            "has_ports": self._config.has_ports,
            "port": port,
            "last_port": self._lab.ports.block(port)[-1] if port else None,
            "host_key": container.host_key or None,
            "fingerprint": fingerprint,
            "gateway_fingerprint": machine.ssh_fingerprint(),
            "uptime_seconds": _seconds_since(container.started_at, now) if running else None,
            "cpu_limit": container.config.get("limits.cpu") or None,
            "memory_used": usage.memory if running else None,
            "memory_limit": container.config.get("limits.memory") or None,
            "disk_used": usage.disk,
            "disk_limit": container.disk_limit or None,
            "disk_full": is_full(usage.disk or 0, shown.bytes_of(container.disk_limit) or 0),
            "processes": usage.processes if running else None,
            "host_load": round(load.averages[0], 2),
            "host_processors": load.processors,
            "host_memory_used": load.memory_used,
            "host_memory_total": load.memory_total,
            "maintenance": self._lab.closed.message,
            "idle_stop_days": self._config.idle_stop_days,
            "stops_at": idleness.written(max(due, now)) if due and is_near else None,
            "held_until": idleness.written(hold.until) if hold else None,
            "held_for": hold.reason or None if hold else None,
            "kept": moment_of_kept(container.kept),
        }


def _seconds_since(moment: float | None, now: float) -> int | None:
    return None if moment is None else max(0, int(now - moment))
