"""Idle stop: containers without use are stopped where it is configured, after a warning, and with a notice."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from labshell import shown
from labshell.engine.records import Usage
from labshell.errors import LabshellError, UsageError
from labshell.host import gpus, machine
from labshell.language import mark
from labshell.model import idleness
from labshell.model.container import Container, Hold
from labshell.model.idleness import Sample
from labshell.model.usage import container_of_control_group
from labshell.operations.lab import Lab
from labshell.operations.report import Reports
from labshell.operations.steps import Progress, Steps
from labshell.wire.admin import IdleContainer
from labshell.wire.gateway import ContainerReport

log = logging.getLogger(__name__)
LOOK_SECONDS = 300
WALL_SECONDS = 10


@dataclass(frozen=True)
class Seen:
    """One running container: when it was last at work, and when it is stopped if that does not change."""

    container: Container
    last_active: float
    due: float | None
    is_known: bool  # it was seen before, so its being idle is no first impression
    is_measured: bool = True  # it was seen before, or by an earlier daemon: last_active is no first impression

    def row(self, now: float) -> IdleContainer:
        hold = self.container.hold_at(now)
        return {
            "user": self.container.name,
            "idle_since": idleness.written(self.last_active) if self.is_measured else None,
            "stops_at": idleness.written(self.due),
            "held_until": idleness.written(hold.until) if hold else None,
            "held_for": hold.reason if hold else None,
        }


class IdleStop:
    """What one host does about idle containers."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._reports = Reports(lab)
        self._containers = lab.containers
        self._clock = lab.clock
        self._days = lab.config.idle_stop_days
        self._samples: dict[str, Sample] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()  # one look at a time: each is compared with the one before

    def hold(self, user: str, uid: int, lasting: str, reason: str) -> ContainerReport:
        """Keep the user's container from being stopped for being idle."""
        wanted = idleness.hold_for(lasting, reason, self._clock.seconds(), self._lab.config.keep_days)
        return self._set_hold(user, uid, wanted)

    def release(self, user: str, uid: int) -> ContainerReport:
        return self._set_hold(user, uid, None)

    def _set_hold(self, user: str, uid: int, hold: Hold | None) -> ContainerReport:
        with self._lab.locks.held(user):
            self._containers.owned(user, uid)
            self._containers.marks.set_hold(user, hold)
        return self._reports.status(user, uid)

    def report(self) -> list[IdleContainer]:
        """Every user whose container runs, measured once more; the longest idle first."""
        found = self.look()
        return [seen.row(self._clock.seconds()) for seen in found]

    def look(self) -> list[Seen]:
        """See once more who uses their container, and remember it."""
        with self._lock:
            return self._look()

    def _look(self) -> list[Seen]:
        now, occupied = self._clock.seconds(), self._occupied()
        running = [
            (item, used)
            for item, used in self._containers.all_with_usage()
            if item.state == "Running" and item.owner == item.name
        ]
        before, known = self._samples, self._lab.activity.read()
        self._samples = {item.name: _sample(item, used, now, occupied) for item, used in running}
        found = []
        for item, _ in running:
            name = item.name
            is_busy = name in before and idleness.is_busy(before[name], self._samples[name])
            last_active = now if is_busy or name not in known else max(known[name], item.started_at or 0)
            due = idleness.stops_at(last_active, self._days, item.hold)
            is_measured = name in before or name in known
            found.append(Seen(item, last_active, due, is_known=name in before, is_measured=is_measured))
        self._lab.activity.write({**known, **{seen.container.name: seen.last_active for seen in found}})
        return sorted(found, key=lambda seen: (seen.last_active, seen.container.name))

    def refuse_if_off(self) -> None:
        """Say so where an administrator wants idle containers stopped and the host stops none."""
        if not self._days:
            raise UsageError(
                "idle-stop-off", "Idle stop is off: set idle_stop_days in labshell.toml. Nothing was stopped."
            )

    def stop_idle(self) -> Steps[list[IdleContainer]]:
        """Look, warn whose time is nearly over, and stop whose time is over; what there was to see."""
        rows: list[IdleContainer] = []
        for seen in self.look():
            name, left = seen.container.name, (seen.due or 0) - self._clock.seconds()
            was_stopped = False
            if seen.due is None or not seen.is_known:
                pass  # a host that stops none; or this is the first look at it
            elif left < 0:
                yield Progress("Stopping {name}", {"name": name})
                was_stopped = self._stop(seen)
            elif left < idleness.WARN_SECONDS and name not in self._warned:
                self._warn(name, seen.due)
            elif left > idleness.WARN_SECONDS:
                self._warned.discard(name)
            rows.append({**seen.row(self._clock.seconds()), "was_stopped": was_stopped})
        return rows

    def _stop(self, seen: Seen) -> bool:
        """Cleanly: whoever is just starting something has the lock, and what does not want to stop goes on.

        Minutes may have gone by with the others since the look: who has come meanwhile, or holds it, is left alone.
        """
        name = seen.container.name
        try:
            with self._lab.locks.held(name, timeout_seconds=0):
                if _as_seen(self._containers.get(name)) != _as_seen(seen.container) or name in self._occupied():
                    return False
                self._containers.lifecycle.stop(name, self._lab.config.stop_timeout_seconds)
        except LabshellError as error:
            log.warning("idle container not stopped", extra={"container": name, "why": str(error)})
            return False
        log.info("idle container stopped", extra={"container": name})
        sentence = mark("Your container was stopped after {days} days without use.")
        self._lab.unfinished.tell(name, sentence, days=str(self._days))
        return True

    def _warn(self, name: str, due: float) -> None:
        """To every terminal inside; at the next login the card says the same."""
        self._warned.add(name)
        config = self._lab.config
        gateway = shown.gateway(name, config.shown_hostname, config.ssh_port)
        moment = shown.moment(idleness.written(due))
        text = f"This container is idle and will stop at {moment}; to prevent it, run: ssh {gateway} keep 3d"
        try:
            status, why = self._containers.inside.run(name, ["wall", text], timeout_seconds=WALL_SECONDS)
        except LabshellError as error:
            status, why = 1, str(error)
        if status:
            log.warning("nobody inside warned", extra={"container": name, "why": why[-200:]})

    def _occupied(self) -> set[str]:
        """Containers with a login, here or inside, or with a process on a GPU."""
        uids, containers = machine.people_at_work()
        users = {name for name, uid in self._lab.accounts.all().items() if uid in uids}
        on_gpus = {container_of_control_group(machine.control_group(pid)) for pid in gpus.processes()}
        return users | containers | {name for name in on_gpus if name}


def _as_seen(item: Container | None) -> object:
    """What has to be as it was for a container to be stopped: a stop, a start and a hold say that somebody came."""
    return item and (item.state, item.started, item.hold)


def _sample(item: Container, used: Usage, now: float, occupied: set[str]) -> Sample:
    return Sample(now, used.cpu_seconds or 0.0, used.network_bytes or 0, item.name in occupied)
