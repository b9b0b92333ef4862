"""The engine's instances: found by name and by owner mark, and what they use.

pylxd's objects go stale, so everything is read afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from labshell.engine import records
from labshell.engine.client import Engine
from labshell.engine.errors import Missing, translate_errors
from labshell.engine.network import Network
from labshell.engine.pools import Pools
from labshell.engine.records import Usage
from labshell.errors import NoContainer, UsageError
from labshell.model.container import Container

STATES_AT_ONCE = 4


class Instances:
    """Every instance of one engine, to be read."""

    def __init__(self, engine: Engine, network: Network) -> None:
        self._engine = engine
        self.network = network
        self.pools = Pools(engine)

    def get(self, name: str) -> Container | None:
        """The container of that name, of any owner."""
        # On the lab's own network only the state says which address it has.
        found = self._found(name, with_state=self.network.is_labs_own)
        return None if found is None else self._described(found)

    def owned(self, user: str, uid: int) -> Container:
        """The container that is `user`'s by its owner mark; NoContainer otherwise."""
        return _owned(self.get(user), user, uid)

    def owned_with_usage(self, user: str, uid: int) -> tuple[Container, Usage]:
        """The same with what it uses, in one question to the engine."""
        found = self._found(user, with_state=True)
        container = _owned(None if found is None else self._described(found), user, uid)
        return container, self._with_disk(container, records.usage_of((found or {}).get("state") or {}))

    def _found(self, name: str, *, with_state: bool) -> dict[str, Any] | None:
        """What the engine says of one instance; None if there is none."""
        with translate_errors(name, "be read"):
            try:
                return self._engine.read("instances", name, **({"recursion": "1"} if with_state else {}))
            except Missing:
                return None

    def all(self) -> list[Container]:
        """Every instance of the engine, ours or not."""
        with translate_errors("", "be listed"):
            return [records.container_of(item) for item in self._engine.read_all("instances", recursion="1")]

    def all_of(self, user: str) -> list[Container]:
        """The user's container by its mark, and what stands beside it: kept by a rebuild, or in the making."""
        return [
            item
            for item in self.all()
            if item.owner == user and (item.name == user or item.name.startswith(f"{user}--"))
        ]

    def templates(self) -> list[str]:
        """The containers that are marked as templates."""
        return [container.name for container in self.all() if container.is_template]

    def usage(self, container: Container) -> Usage:
        with translate_errors(container.name, "be read"):
            state = self._engine.read("instances", container.name, "state")
        return self._with_disk(container, records.usage_of(state))

    def first_process(self, name: str) -> int | None:
        """The pid on the host of a running container's process 1; None of one that is stopped."""
        with translate_errors(name, "be read"):
            pid = self._engine.read("instances", name, "state").get("pid")
        return pid if pid and pid > 0 else None

    def _with_disk(self, container: Container, used: Usage) -> Usage:
        return replace(used, disk=self.pools.held_by(container) or used.disk)

    def all_with_usage(self) -> list[tuple[Container, Usage]]:
        """Every instance with what it uses.

        The engine's own answer to both at once took four times as long (500 instances, 58 of them running): it
        looks into those that are stopped, too.
        """
        with translate_errors("", "be listed"):
            found = self._engine.read_all("instances", recursion="1")
            running = [item["name"] for item in found if item["status"] == "Running"]
            with ThreadPoolExecutor(STATES_AT_ONCE) as threads:
                states = dict(zip(running, threads.map(self._state, running), strict=True))
        with_state = [{**item, "state": states.get(item["name"], {})} for item in found]
        described = [(self._described(item), records.usage_of(item["state"])) for item in with_state]
        held = {pool: self.pools.held(pool) for pool in {container.pool for container, _ in described}}
        return [(item, replace(used, disk=held[item.pool].get(item.name) or used.disk)) for item, used in described]

    def _described(self, item: Mapping[str, Any]) -> Container:
        """The container. The state's address, which root inside chooses, counts on the lab's own network only."""
        found = records.container_of(item)
        if self.network.is_labs_own:
            address = found.address or records.current_address(item.get("state") or {})
            return replace(found, address=self.network.believed(address))
        return found

    def _state(self, name: str) -> dict[str, Any]:
        """What the engine says of a running container; nothing if it has gone meanwhile."""
        try:
            return self._engine.read("instances", name, "state")
        except (Missing, UsageError):
            return {}

    def usage_of_all(self) -> dict[str, Usage]:
        """What every running container of a user's uses."""
        return {
            container.name: used
            for container, used in self.all_with_usage()
            if container.state == "Running" and container.owner == container.name
        }


def _owned(container: Container | None, user: str, uid: int) -> Container:
    if container is None:
        raise NoContainer(
            "container-not-assigned", "You have no container on this machine yet; ask the administrator for one."
        )
    if not container.belongs_to(user, uid):
        raise NoContainer(
            "container-not-owned",
            "The container {name} is not marked as yours; ask the administrator to look at it.",
            name=user,
        )
    return container
