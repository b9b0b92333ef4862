"""Taking over what a lab has made by hand: containers, their proxy devices, port files and DNAT rules.

What is inside a container is not changed. A port that leads to its SSH server keeps its number; the proxy device
behind it is replaced by our rule. Everything else that is somebody's stays as it is. A container of labshell's whose
person has no account any more, as after a new installation of the host, is taken over in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from labshell.engine.proxies import Proxy
from labshell.errors import LabshellError, UsageError
from labshell.model import forwards, keys
from labshell.model.container import Container, OwnForward
from labshell.model.keys import PublicKey
from labshell.model.names import checked_name
from labshell.model.ports import SSH
from labshell.operations import plans
from labshell.operations.host_accounts import HostAccounts
from labshell.operations.lab import Lab
from labshell.operations.steps import NamedStep, Steps, Undo, do
from labshell.wire.admin import AdoptedContainer, AdoptionCandidate

KEY_FILES = "cat /home/{name}/.ssh/authorized_keys /root/.ssh/authorized_keys 2>/dev/null | head -c 65536"


@dataclass(frozen=True)
class Candidate:
    """A container that could have an owner, with what leads to it; `problem` is why it cannot be taken over.

    One that has an owner is a returning person's, whose account is gone.
    """

    container: Container
    address: str | None
    port: int | None
    proxies: tuple[Proxy, ...]
    problem: str | None

    @property
    def row(self) -> AdoptionCandidate:
        others = [f"{proxy.port}:{proxy.target}" for proxy in self.proxies if proxy.target != SSH]
        return {
            "name": self.container.name,
            "state": self.container.state.lower(),
            "address": self.address,
            "port": self.port,
            "other_ports": others,
            "returning": self.container.owner is not None,
            "problem": self.problem,
        }


class Adoption:
    """Taking over on one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._host_accounts = HostAccounts(lab)
        self._containers = lab.containers
        self._accounts = lab.accounts
        self._ports = lab.ports
        self._firewall = lab.firewall

    def plan(self) -> list[AdoptionCandidate]:
        """Every container that is not labshell's, and what would become of it."""
        return [candidate.row for candidate in self._candidates()]

    def adopt(self, name: str, given: list[PublicKey], *, dry_run: bool = False) -> Steps[AdoptedContainer]:
        """Give one container its owner: account, keys, marks, pinned address, port, rules."""
        container = self._containers.get(checked_name(name))
        if container is None:
            raise UsageError("container-missing", "There is no container {name}.", name=name)
        candidate = next((one for one in self._candidates() if one.container.name == name), None)
        if candidate is None:
            raise UsageError("container-already-adopted", "The container {name} is labshell's already.", name=name)
        if candidate.problem:
            raise UsageError(
                "container-not-adoptable",
                "{name} cannot be taken over: {problem}.",
                name=name,
                problem=candidate.problem,
            )
        found = given or self._keys_inside(container)
        if not found:
            raise UsageError(
                "container-key-missing", "No key of {name}'s was found inside; give one with --key FILE.", name=name
            )
        if dry_run:
            would = self._would(candidate, found)
            return {"container": candidate.row, "keys": [key.fingerprint for key in found], "would": would}
        undo = Undo("labshell-admin list says what is left.")
        with self._lab.locks.held(name):
            undo.later(self._firewall.forward_user, name)
            yield from do(name, "taken over", self._steps(candidate, found, undo), undo)
        return {"container": candidate.row, "keys": [key.fingerprint for key in found]}

    def _would(self, candidate: Candidate, found: list[PublicKey]) -> list[str]:
        """What adopt() would do, as sentences."""
        name = candidate.container.name
        uid = self._accounts.uid_of(name)
        names = f"{plans.counted(len(found), 'key')}: {plans.key_names(found)}"
        port = self._ports.port_of(name) or candidate.port or self._ports.next_port()
        of_account = f"Would make the account {name} (uid {self._host_accounts.next_uid()}) with {names}."
        if uid is not None:
            of_account = f"Would give the account {name} (uid {uid}) {names}."
        return [
            of_account,
            f"Would mark the container {name} as {name}'s and pin its address {candidate.address}.",
            f"Would give {name} the ports {port}-{self._ports.block(port)[-1]}.",
        ]

    def _steps(self, candidate: Candidate, found: list[PublicKey], undo: Undo) -> Iterator[NamedStep]:
        yield "Making the account", lambda: self._make_account(candidate, found, undo)
        yield "Marking the container and pinning its address", lambda: self._mark(candidate, undo)
        yield "Taking over its ports", lambda: self._take_over_ports(candidate, undo)

    def _candidates(self) -> list[Candidate]:
        """Every container that could be taken over. Of two whose blocks would overlap, the lower port is kept."""
        uids = self._accounts.all()
        found = [self._candidate(item) for item in self._containers.all() if _is_foreign(item, uids)]
        before: dict[int, str] = {}
        checked = []
        for candidate in sorted(found, key=lambda one: one.port or 0):
            name, port, problem = candidate.container.name, candidate.port, candidate.problem
            if port is not None and not problem:
                problem = self._problem_of_port(name, port, before, self._own_ports(candidate))
                before |= {} if problem else {port: name}
            checked.append(replace(candidate, problem=problem))
        return sorted(checked, key=lambda one: one.container.name)

    def _problem_of_port(self, name: str, port: int, others: dict[int, str], own: set[int]) -> str | None:
        try:
            self._ports.check_adopt(name, port, others, own)
        except LabshellError as error:
            return _as_problem(error)
        return None

    def _own_ports(self, candidate: Candidate) -> set[int]:
        """The host ports that lead to a container already, by proxy devices or by rules made by hand."""
        by_rules = self._firewall.ports_to(candidate.address) if candidate.address else set()
        return {proxy.port for proxy in candidate.proxies} | by_rules

    def _candidate(self, container: Container) -> Candidate:
        name = container.name
        address, port, problem = container.address, None, None
        proxies: tuple[Proxy, ...] = ()
        try:
            checked_name(name)
            self._accounts.uid_of(name)
            address = address or self._containers.addresses.current(name)
            proxies = tuple(self._containers.proxies.of(name))
            port = self._ports.port_of(name) or _ssh_port(proxies) or self._firewall.old_port(address or "")
        except LabshellError as error:
            problem = _as_problem(error)
        if not problem and container.config.get("security.privileged") == "true":
            problem = "it is privileged: set security.privileged=false, restart it and look whether it still works"
        if not problem and address is None:
            problem = "the engine's DHCP server has given it no address: start it once, with DHCP on eth0"
        network = self._containers.network
        if not problem and address != network.believed(address):
            problem = f"its address {address} is not one of {network.name}: connect it to that network first"
        return Candidate(container, address, port, proxies, problem)

    def _keys_inside(self, container: Container) -> list[PublicKey]:
        """The keys that can log in there now, read by a program inside; what is no key is passed over."""
        if container.state != "Running":
            return []
        script = KEY_FILES.format(name=container.name)
        _, text = self._containers.inside.ask(container.name, ["sh", "-c", script], timeout_seconds=15)
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
            undo.later(self._accounts.give_up, name)
        else:
            before = self._accounts.keys_of(name)
            undo.later(lambda user: self._accounts.set_keys(user, before), name)
        self._host_accounts.make(name, found)
        if candidate.container.expires:
            self._accounts.set_expiry(name, candidate.container.expires)

    def _mark(self, candidate: Candidate, undo: Undo) -> None:
        name, uid = candidate.container.name, self._accounts.uid_of(candidate.container.name)
        kept = [item.name for item in self._containers.all_of(name) if item.name != name]
        for other in kept:  # a returning person's, from before a rebuild
            self._put_back_later(other, undo)
            self._containers.marks.set_owner(other, name, uid or 0)
        self._put_back_later(name, undo)
        host_key = candidate.container.host_key
        if candidate.container.state == "Running":
            host_key = self._containers.inside.host_key(name) or host_key
        self._containers.marks.adopt(name, uid or 0, candidate.address or "", host_key)
        if candidate.container.state == "Stopped":
            self._containers.addresses.assign(name, candidate.address)
        if not candidate.container.config.get("limits.processes"):
            self._containers.configuration.apply(name, {"processes": str(self._lab.config.processes)})

    def _put_back_later(self, name: str, undo: Undo) -> None:
        before = self._containers.configuration.read(name)
        undo.later(lambda container: self._containers.configuration.put_back(container, before), name)

    def _take_over_ports(self, candidate: Candidate, undo: Undo) -> None:
        """The SSH port keeps its number. Proxies that our rules replace go; those outside the block stay."""
        name = candidate.container.name
        if self._ports.port_of(name) is None:
            undo.later(self._ports.give_up, name)
        if candidate.port is not None:
            self._ports.adopt(name, candidate.port, self._own_ports(candidate))
        port = self._ports.ensure(name)
        block = self._ports.block(port)
        ours = [proxy for proxy in candidate.proxies if proxy.port in block]
        added = [OwnForward(proxy.port, proxy.target) for proxy in ours if proxy.port != port]
        self._containers.marks.set_forwards(name, forwards.within([*added, *candidate.container.forwards], block))
        self._containers.proxies.remove(name, [proxy.device for proxy in ours])
        self._firewall.forward_user(name)


def _is_foreign(container: Container, uids: Mapping[str, int]) -> bool:
    """Whether it has no owner; `uids` are those of the accounts there are."""
    if container.owner:
        return container.is_of_earlier(container.name, uids.get(container.name))
    return not (container.is_template or container.is_service or "--" in container.name)


def _as_problem(error: LabshellError) -> str:
    return str(error).rstrip(".")


def _ssh_port(proxies: tuple[Proxy, ...]) -> int | None:
    return next((proxy.port for proxy in proxies if proxy.target == SSH), None)
