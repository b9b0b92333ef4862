"""What the methods of org.labshell.Gateway answer: one type for each of the `.varlink` file, which explains them.

A value that is None is left out on the wire.
"""

from __future__ import annotations

from typing import TypedDict


class Progress(TypedDict):
    sentence: str
    values: dict[str, str]


class ContainerReport(TypedDict):
    """What Report and the administrator's User have in common."""

    user: str
    host: str
    host_port: int
    menu_idle_minutes: int
    state: str
    address: str | None
    has_ports: bool
    port: int | None
    last_port: int | None
    host_key: str | None
    fingerprint: str | None
    gateway_fingerprint: str | None
    uptime_seconds: int | None
    cpu_limit: str | None
    memory_used: int | None
    memory_limit: str | None
    disk_used: int | None
    disk_limit: str | None
    disk_full: bool
    processes: int | None
    host_load: float
    host_processors: int
    host_memory_used: int
    host_memory_total: int
    maintenance: str | None
    idle_stop_days: int
    stops_at: str | None
    held_until: str | None
    held_for: str | None
    kept: str | None


class Report(ContainerReport, total=False):
    notice: Progress | None


class Forward(TypedDict):
    port: int
    target: int
    name: str | None
    source: str | None
    seconds_left: int | None
    listens: str | None


class Ports(TypedDict):
    host: str
    has_ports: bool
    port: int | None
    last_port: int | None
    forwards: list[Forward]


class Key(TypedDict):
    kind: str
    fingerprint: str
    comment: str | None
    options: str | None
    only_inside: bool


class KeySession(TypedDict):
    address: str | None
    is_known: bool


class FoundKey(TypedDict):
    fingerprint: str
    key: Key | None
    is_last: bool
    sessions: list[KeySession]


class Snapshot(TypedDict):
    name: str
    created: str
    size: int | None


class Neighbour(TypedDict):
    user: str
    cpu: float | None
    memory: int | None


class UsageReport(TypedDict):
    report: Report
    cpu: float | None
    others: list[Neighbour]


class GpuUser(TypedDict):
    user: str
    memory: int | None


class Gpu(TypedDict):
    index: int
    model: str
    utilization: int | None
    memory_used: int | None
    memory_total: int | None
    temperature: int | None
    users: list[GpuUser]


class GpuReport(TypedDict):
    why_none: Progress | None
    gpus: list[Gpu]


class Finding(TypedDict):
    check: str
    result: str
    finding: Progress
    remedy: Progress | None


class Terminal(TypedDict):
    type: str
    rows: int
    columns: int
