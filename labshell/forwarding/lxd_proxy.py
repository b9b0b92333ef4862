"""Forwards as proxy devices of LXD, where `forwarding` is "lxd-proxy"."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from labshell.engine.proxies import Proxies
from labshell.errors import LabshellError
from labshell.model import forwards
from labshell.model.forwards import Difference, Forward

log = logging.getLogger(__name__)


class ProxyForwarding:
    """What `Forwarding` does with iptables, for the same callers."""

    can_limit_sources = False

    def __init__(self, proxies: Proxies, address: str) -> None:
        """`address` is the host's own that the devices listen on: with nat the engine takes no wildcard."""
        self._proxies = proxies
        self.address = address

    def live(self) -> list[Forward]:
        return self._proxies.ours(self.address)

    def packets(self, user: str) -> int | None:
        """The engine's rules count nothing."""
        return None

    def apply(self, wanted: Iterable[Forward]) -> Difference:
        """Make the devices those of `wanted`. A container that cannot be changed now does not keep the others."""
        wanted = list(wanted)
        change = forwards.difference(self.live(), wanted)
        for user in sorted({forward.user for forward in (*change.remove, *change.add)}):
            try:
                self._write(user, wanted)
            except LabshellError as error:
                log.warning("forwards not changed", extra={"container": user, "why": str(error)})
        return change

    def apply_user(self, user: str, wanted: Iterable[Forward]) -> Difference:
        wanted = list(wanted)
        change = forwards.difference([forward for forward in self.live() if forward.user == user], wanted)
        if change:
            self._write(user, wanted)
        return change

    def remove_all(self) -> None:
        self.apply([])

    def _write(self, user: str, wanted: Iterable[Forward]) -> None:
        own = [forward for forward in wanted if forward.user == user]
        self._proxies.set_ours(user, own, self.address)
