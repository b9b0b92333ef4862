"""A container with its forwards and its hold, in our words. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OwnForward:
    """A forward of a user's own, as it is stored with the container. `until` is seconds since 1970, or None."""

    port: int
    target: int
    name: str = ""
    source: str = ""
    until: int | None = None

    def is_over(self, now: float) -> bool:
        return self.until is not None and self.until <= now


@dataclass(frozen=True)
class Hold:
    """A user's exemption from idle stop: until when, in seconds since 1970."""

    until: float
    reason: str = ""


@dataclass(frozen=True)
class Container:
    """What the engine knows about one container, in our words."""

    name: str
    state: str
    owner: str | None
    uid: int | None
    address: str | None
    pool: str = ""  # the storage pool that it is on
    disk_limit: str = ""  # as the engine writes it
    is_pinned: bool = True  # the engine gives it this address and no other
    is_fenced: bool = True  # its port of the bridge takes no other address from it, and leads to no other container
    port_on_host: str = ""  # what its port of the bridge is called there, if that is fixed
    denies_calls: bool = True  # the system calls that no user's container may make
    needs_bridge_netfilter: bool = False  # its port asks for a filter that needs that kernel module
    is_template: bool = False
    is_service: bool = False  # belongs to no person; its forwards take any port of the host
    is_prepared: bool = False
    gpus: str = "none"  # as the setting is written
    mounts: str = ""  # ours, as the setting is written
    template: str = ""  # that it was cloned from
    profile: str = ""  # of settings, that it was given last
    writable_mounts: tuple[str, ...] = ()  # folders of the host
    gpus_aside: bool = False  # it runs without its GPUs, which could not be had
    expires: datetime.date | None = None
    host_key: str = ""
    hold: Hold | None = None
    kept: str = ""  # the container that the last rebuild put aside
    started: str = ""
    forwards: tuple[OwnForward, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_in_use(self) -> bool:
        """Whether it is a user's or a service: no template, and none that a rebuild keeps or makes."""
        return self.owner == self.name or self.is_service

    @property
    def started_at(self) -> float | None:
        """When it was started last, in seconds since 1970; from what the engine says (RFC 3339, nanoseconds)."""
        try:
            moment = datetime.datetime.fromisoformat(self.started[:19]).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            return None
        return moment.timestamp()

    @property
    def has_old_port(self) -> bool:
        """Whether its port of the bridge is not what a clone's is now."""
        return not (self.is_pinned and self.is_fenced) or self.needs_bridge_netfilter

    def belongs_to(self, user: str, uid: int) -> bool:
        return self.name == user and self.owner == user and self.uid == uid

    def is_of_earlier(self, user: str, uid: int | None) -> bool:
        """Whether it was finished for an earlier `user` whose account is gone; `uid` is today's, if any."""
        return self.is_prepared and self.name == user and self.owner == user and (uid is None or self.uid != uid)

    def hold_at(self, now: float) -> Hold | None:
        """The hold that is not over yet."""
        return self.hold if self.hold and self.hold.until > now else None

    def may_be_used(self, today: datetime.date) -> bool:
        """Whether its owner's time is not over; `expires` is the last day."""
        return self.expires is None or today <= self.expires
