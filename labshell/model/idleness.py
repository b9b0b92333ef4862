"""When a container counts as idle, and when it is stopped for that. Pure.

Idle means: no user is logged in, nothing is on a GPU, and processor and network are as quiet as in a container in
which nothing was ever begun. A job without a terminal is none of that.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from labshell import shown
from labshell.errors import UsageError
from labshell.model.container import Hold
from labshell.model.forwards import seconds_of

BUSY_PROCESSORS = 0.005  # an empty container was measured at a tenth of this
BUSY_BYTES_PER_SECOND = 1024
DAY = 86400
WARN_SECONDS = DAY
LONGEST_REASON = 80


@dataclass(frozen=True)
class Sample:
    """What a container has done since its start, at a moment in seconds since 1970."""

    moment: float
    cpu_seconds: float
    network_bytes: int
    is_occupied: bool  # somebody is logged in, or something is on a GPU


def is_busy(before: Sample, now: Sample) -> bool:
    """Whether the container has been at work between two looks. Counters that went back mean a restart."""
    seconds = max(1.0, now.moment - before.moment)
    cpu = now.cpu_seconds - before.cpu_seconds
    network = now.network_bytes - before.network_bytes
    has_restarted = cpu < 0 or network < 0
    return (
        now.is_occupied
        or has_restarted
        or cpu / seconds > BUSY_PROCESSORS
        or network / seconds > BUSY_BYTES_PER_SECOND
    )


def stops_at(last_active: float, days: int, hold: Hold | None) -> float | None:
    """When an idle container is stopped, if it goes on being idle; None on a host that stops none."""
    if not days:
        return None
    return max(last_active + days * DAY, hold.until if hold else 0)


def hold_for(lasting: str, reason: str, now: float, most_days: int) -> Hold:
    """What a user asks for with `keep`: until when, and why."""
    seconds = seconds_of(lasting)
    if seconds > most_days * DAY:
        raise UsageError("keep-too-long", "On this host you may keep it for {days} days at a time.", days=most_days)
    if len(reason) > LONGEST_REASON:
        raise UsageError("reason-too-long", "A reason has up to {most} characters.", most=LONGEST_REASON)
    return Hold(now + seconds, shown.plain(reason))


def written(moment: float | None) -> str | None:
    """A moment as RFC 3339 in UTC."""
    if moment is None:
        return None
    return shown.rfc3339(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat())
