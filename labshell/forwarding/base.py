"""What every variant of forwarding can do, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from labshell.model.forwards import Difference, Forward


class Adapter(Protocol):
    """What makes forwards live on a host, idempotently: iptables, or proxy devices of the engine."""

    address: str  # of the host's, where every forward can be tried
    can_limit_sources: bool

    def live(self) -> list[Forward]:
        """The forwards that are live, whether wanted or not."""

    def apply(self, wanted: Iterable[Forward]) -> Difference:
        """Make the live ones those in `wanted`; what differed."""

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> Difference:
        """The same for the forwards of one user, leaving all others alone."""

    def packets(self, user: str) -> int | None:
        """How many connections the forwards of one user have taken; None where they are not counted."""

    def remove_all(self) -> None:
        """Take every trace away."""


class NoForwards:
    """No forwards at all: every container has an address on the lab's own network."""

    address = ""
    can_limit_sources = False

    def live(self) -> list[Forward]:
        return []

    def apply(self, wanted: Iterable[Forward]) -> Difference:
        return Difference((), ())

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> Difference:
        return Difference((), ())

    def packets(self, user: str) -> int | None:
        return None

    def remove_all(self) -> None:
        pass
