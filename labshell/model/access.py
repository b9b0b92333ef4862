"""Who may use the users' socket. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from labshell.errors import NotAllowed


@dataclass(frozen=True)
class Caller:
    """Who is on the other end of a socket, as the kernel says."""

    uid: int
    name: str
    groups: frozenset[str] = frozenset()
    login: str = ""  # who had logged in before becoming this user, for the change log


def may_use_gateway(caller: Caller, group: str, uid_min: int = 1000) -> None:
    """Accept managed users only: not root, not system users, not container ids."""
    if caller.uid < uid_min or caller.uid >= 65534 or group not in caller.groups:
        raise NotAllowed("account-not-managed", "This account is not managed by labshell.")
