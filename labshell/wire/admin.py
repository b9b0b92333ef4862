"""What the methods of org.labshell.Admin answer: one type for each of the `.varlink` file, which explains them.

A value that is None is null on the wire, and what is not required may be missing.
"""

from __future__ import annotations

from typing import TypedDict

from labshell.wire.gateway import ContainerReport, FoundKey, Key, KeySession, Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import NotRequired

__all__ = ["FoundKey", "Key", "KeySession", "Progress"]  # the same in both interfaces


class KeptState(TypedDict):
    name: str
    created: str | None


class User(ContainerReport):
    uid: int
    keys: list[str]
    gpus: str
    expires: str | None
    last_login: str | None
    forwards: list[str]
    settings: dict[str, str]
    template: str | None
    profile: str | None
    snapshots: list[KeptState]
    rules_are_live: bool


class UserPlan(TypedDict):
    user: str
    uid: int
    address: str | None
    port: int | None
    last_port: int | None
    template: str
    settings: dict[str, str]


class AddedUser(TypedDict):
    user: NotRequired[User]
    was_there: bool
    password: NotRequired[str]
    plan: NotRequired[UserPlan]
    would: NotRequired[list[str]]


class RemovedKey(TypedDict):
    found: FoundKey
    keys: list[Key]
    ended: int


class SettingChange(TypedDict):
    what: str
    before: str
    after: str
    text: str


class ChangedUser(TypedDict):
    user: User
    password: NotRequired[str]
    waits_for_restart: bool
    changes: list[SettingChange]
    would: NotRequired[list[str]]


class RemovedUser(TypedDict):
    archives: list[str]
    would: NotRequired[list[str]]


class RestorePlan(TypedDict):
    user: str
    uid: int
    address: str


class RestoredUser(TypedDict):
    user: NotRequired[User]
    plan: NotRequired[RestorePlan]
    would: NotRequired[list[str]]


class Service(TypedDict):
    service: str
    state: str
    address: str | None
    forwards: list[str]
    autostart: bool


class ServicePlan(TypedDict):
    service: str
    address: str
    forwards: list[str]
    autostart: bool
    template: str
    settings: dict[str, str]


class AddedService(TypedDict):
    service: NotRequired[Service]
    plan: NotRequired[ServicePlan]
    would: NotRequired[list[str]]


class RemovedService(TypedDict):
    would: NotRequired[list[str]]


class AdoptionCandidate(TypedDict):
    name: str
    state: str
    address: str | None
    port: int | None
    other_ports: list[str]
    returning: bool
    problem: str | None


class AdoptedContainer(TypedDict):
    container: AdoptionCandidate
    keys: list[str]
    would: NotRequired[list[str]]


class ContainerState(TypedDict):
    name: str
    state: str
    would: NotRequired[list[str]]


class Container(TypedDict):
    name: str
    kind: str
    started: str | None
    processes: int | None
    memory: int | None
    gpus: str
    held_for: str | None


class Failure(TypedDict):
    name: str
    why: str


class Drained(TypedDict):
    containers: list[Container]
    failed: list[Failure]
    stopped: list[str]
    is_ended_early: NotRequired[bool]


class Undrained(TypedDict):
    stopped: list[str]
    started: list[str]
    failed: list[Failure]


class IdleContainer(TypedDict):
    user: str
    idle_since: str | None
    stops_at: str | None
    held_until: str | None
    held_for: str | None
    was_stopped: NotRequired[bool]


class ChangeEntry(TypedDict):
    time: str
    who: str
    verb: str
    subject: str
    given: dict[str, str]
    result: str


class UserRow(TypedDict):
    user: str
    uid: int | None
    state: str
    address: str | None
    port: int | None
    problem: str | None
    last_port: int | None
    memory: int | None
    disk: int | None
    gpus: str | None
    last_login: str | None
    expires: str | None


class Rule(TypedDict):
    port: int
    user: str
    to: str


class RuleChanges(TypedDict):
    remove: list[Rule]
    add: list[Rule]
