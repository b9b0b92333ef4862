"""Taking over what a lab has made by hand: containers, their proxy devices, port files and DNAT rules.

What is inside a container is not changed. A port that leads to its SSH server keeps its number; the proxy device
behind it is replaced by our rule. Everything else that is somebody's stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labshell import keys, policy
from labshell.errors import LabshellError, UsageError
from labshell.gateway import Gateway, Progress, Steps
from labshell.keys import PublicKey
from labshell.policy import Container, OwnForward
from labshell.proxies import Proxy
from labshell.undo import Undo

KEY_FILES = "cat /home/{name}/.ssh/authorized_keys /root/.ssh/authorized_keys 2>/dev/null | head -c 65536"
HOST_KEY = "head -c 4096 /etc/ssh/ssh_host_ed25519_key.pub"


@dataclass(frozen=True)
class Candidate:
    """A container that could be somebody's, with what leads to it; `problem` is why it cannot be taken over."""

    container: Container
    address: str | None
    port: int | None
    proxies: tuple[Proxy, ...]
    problem: str | None

    @property
    def row(self) -> dict[str, Any]:
        others = [f"{proxy.port}:{proxy.target}" for proxy in self.proxies if proxy.target != policy.SSH]
        return {
            "name": self.container.name,
            "state": self.container.state.lower(),
            "address": self.address,
            "port": self.port,
            "other_ports": others,
            "problem": self.problem,
        }


class Adoption:
    """Taking over on one host."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._containers = gateway.containers
        self._accounts = gateway.accounts
        self._ports = gateway.ports
        self._firewall = gateway.firewall

    def plan(self) -> list[dict[str, Any]]:
        """Every container that is not labshell's, and what would become of it."""
        return [self._candidate(item).row for item in self._containers.all() if _is_foreign(item)]

    def adopt(self, name: str, given: list[PublicKey], *, dry_run: bool = False) -> Steps[dict[str, Any]]:
        """Make one container its person's: account, keys, marks, pinned address, port, rules."""
        container = self._containers.get(policy.checked_name(name))
        if container is None:
            raise UsageError("There is no container {name}.", name=name)
        if not _is_foreign(container):
            raise UsageError("The container {name} is labshell's already.", name=name)
        candidate = self._candidate(container)
        if candidate.problem:
            raise UsageError("{name} cannot be taken over: {problem}.", name=name, problem=candidate.problem)
        found = given or self._keys_inside(container)
        if not found:
            raise UsageError("No key of {name}'s was found inside; give one with --key FILE.", name=name)
        undo = Undo()
        with self._gateway.locks.held(name), undo:
            yield Progress("Making the account")
            if not dry_run:
                self._make_account(candidate, found, undo)
            yield Progress("Marking the container and pinning its address")
            if not dry_run:
                self._mark(candidate)
            yield Progress("Taking over its ports")
            if not dry_run:
                self._take_over_ports(candidate)
            undo.forget()
        return {**candidate.row, "keys": [key.fingerprint for key in found]}

    def _candidate(self, container: Container) -> Candidate:
        name = container.name
        address = container.address or self._containers.current_address(name)
        proxies = tuple(self._containers.proxies.of(name))
        port, problem = None, None
        try:
            policy.checked_name(name)
            self._accounts.uid_of(name)
            port = self._ports.port_of(name) or _ssh_port(proxies) or self._firewall.old_port(address or "")
        except LabshellError as error:
            problem = str(error).rstrip(".")
        if not problem and container.config.get("security.privileged") == "true":
            problem = "it is privileged: set security.privileged=false, restart it and look whether it still works"
        if not problem and address is None:
            problem = "it has no address on the bridge yet: start it once"
        return Candidate(container, address, port, proxies, problem)

    def _keys_inside(self, container: Container) -> list[PublicKey]:
        """The keys that let people in there now, read by a program inside; what is no key is passed over."""
        if container.state != "Running":
            return []
        script = KEY_FILES.format(name=container.name)
        _, text = self._containers.inside.run(container.name, ["sh", "-c", script], timeout_seconds=15)
        found: dict[str, PublicKey] = {}
        for line in text.splitlines():
            try:
                key = keys.parse(line)
            except UsageError:
                continue
            found[key.blob] = key
        return list(found.values())

    def _make_account(self, candidate: Candidate, found: list[PublicKey], undo: Undo) -> None:
        name = candidate.container.name
        if self._accounts.uid_of(name) is None:
            undo.later(self._accounts.remove, name)
        marked = {item.uid for item in self._containers.all() if item.uid is not None}
        self._accounts.ensure(name, marked)
        self._accounts.set_keys(name, found)

    def _mark(self, candidate: Candidate) -> None:
        name, uid = candidate.container.name, self._accounts.uid_of(candidate.container.name)
        host_key = ""
        if candidate.container.state == "Running":
            status, text = self._containers.inside.run(name, ["sh", "-c", HOST_KEY], timeout_seconds=15)
            host_key = " ".join(text.split()[:2]) if status == 0 else ""
        self._containers.adopt(name, uid or 0, candidate.address or "", host_key)

    def _take_over_ports(self, candidate: Candidate) -> None:
        """The SSH port keeps its number. Proxies that our rules replace go; those outside the block stay."""
        name, size = candidate.container.name, self._gateway.config.ports_per_user
        ours = [
            proxy
            for proxy in candidate.proxies
            if candidate.port and candidate.port <= proxy.port < candidate.port + size
        ]
        self._containers.proxies.remove(name, [proxy.device for proxy in ours])
        if candidate.port is None:
            self._ports.ensure(name)
        else:
            self._ports.adopt(name, candidate.port)
        forwards = [OwnForward(proxy.port, proxy.target) for proxy in ours if proxy.port != candidate.port]
        self._containers.set_forwards(name, forwards)
        self._firewall.forward_user(name)


def _is_foreign(container: Container) -> bool:
    return not (container.owner or container.is_template or container.is_service or "--" in container.name)


def _ssh_port(proxies: tuple[Proxy, ...]) -> int | None:
    return next((proxy.port for proxy in proxies if proxy.target == policy.SSH), None)
