"""Service containers, without an owner, as for a home page. The same template, ports, rules and reconciling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labshell.engine import identity
from labshell.errors import UsageError
from labshell.host import files
from labshell.model.container import Container, OwnForward
from labshell.model.names import existing_name
from labshell.operations import plans
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.steps import NamedStep, Progress, Steps, Undo, do
from labshell.operations.user_forwards import refuse_without_ports
from labshell.operations.user_settings import refuse_missing_folders
from labshell.wire.admin import AddedService, RemovedService, Service, ServicePlan

FORWARD = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})", re.ASCII)


@dataclass(frozen=True)
class NewService:
    """What add-service was asked for."""

    name: str
    forwards: tuple[OwnForward, ...]
    template: str
    settings: Mapping[str, str]
    autostart: bool


def checked_forwards(texts: list[str]) -> tuple[OwnForward, ...]:
    """Forwards as they are typed, HOST:CONTAINER; each host port once."""
    found = []
    for text in texts:
        ports = FORWARD.fullmatch(text)
        numbers = [int(number) for number in ports.groups()] if ports else []
        if not numbers or max(numbers) > 65535:
            raise UsageError(
                "service-forward-invalid",
                "{text} is not a forward: write 80:80, the host's port first.",
                text=repr(text)[:40],
            )
        found.append(OwnForward(numbers[0], numbers[1]))
    if len({own.port for own in found}) != len(found):
        raise UsageError("service-port-repeated", "A port of the host can lead to one place only.")
    return tuple(found)


class Services:
    """The service containers of one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._containers = lab.containers
        self._firewall = lab.firewall

    def add(self, new: NewService, *, dry_run: bool = False) -> Steps[AddedService]:
        """A container without a user, with its forwards live."""
        undo = Undo("Run remove-service, or lxc delete --force, to clean up.")
        with self._lab.locks.held(new.name):
            self._check(new)
            if dry_run:
                return self._plan_to_add(new)
            undo.later(self._firewall.forward_user, new.name)
            yield from do(new.name, "added", self._steps_to_add(new, undo), undo)
        return {"service": _row(self._existing(new.name))}

    def _plan_to_add(self, new: NewService) -> AddedService:
        address = self._lab.addresses.next()
        pairs = [f"{own.port}:{own.target}" for own in new.forwards]
        would = plans.to_add_service(new.name, address, new.template, pairs, new.settings, autostart=new.autostart)
        plan: ServicePlan = {
            "service": new.name, "address": address, "forwards": pairs, "autostart": new.autostart,
            "template": new.template, "settings": dict(new.settings),
        }  # fmt: skip
        return {"plan": plan, "would": would}

    def remove(self, name: str, *, dry_run: bool = False) -> Steps[RemovedService]:
        """Delete a service's container and its rules."""
        with self._lab.locks.held(name):
            forwards = _row(self._existing(name))["forwards"]
            if dry_run:
                ends = [f"Would end the forwards {', '.join(forwards)}."] if forwards else []
                gone = f"Would delete the container {name} with its snapshots, without an archive."
                return {"would": [gone, *ends]}
            yield Progress("Deleting the container")
            self._containers.lifecycle.delete(name)
            self._firewall.forward_user(name)
            files.remove(self._lab.config.paths.host_keys / name)
        return {}

    def list(self) -> list[Service]:
        return [_row(item) for item in self._containers.all() if item.is_service]

    def _existing(self, name: str) -> Container:
        container = self._containers.get(existing_name(name))
        if container is None or not container.is_service:
            raise UsageError("service-missing", "There is no service {name}.", name=name)
        return container

    def _check(self, new: NewService) -> None:
        """Everything that can be known to be wrong before anything is changed."""
        if self._containers.get(new.name) is not None or self._lab.accounts.uid_of(new.name) is not None:
            raise UsageError("service-name-taken", "There is a container or a user {name} already.", name=new.name)
        self._lab.closed.refuse_if_closed()
        self._containers.clones.check_template(new.template)
        refuse_missing_folders(new.settings)
        if new.forwards:
            refuse_without_ports(self._lab.config)
        for own in new.forwards:
            self._lab.ports.check_single(own.port)

    def _steps_to_add(self, new: NewService, undo: Undo) -> Iterator[NamedStep]:
        name, keys_file = new.name, self._lab.config.paths.host_keys / new.name

        def container() -> None:
            undo.later(self._containers.lifecycle.delete, name)
            with self._lab.addresses.choosing() as address:
                self._containers.clones.make(new.template, name, "", None, address)
            public = identity.write_identity(self._containers, name, hostname=name, keys_file=keys_file)
            self._containers.marks.set_host_key(name, public)
            self._containers.configuration.apply(name, new.settings)
            self._containers.marks.set_service(name, autostart=new.autostart)
            self._containers.marks.set_forwards(name, new.forwards)

        def start() -> Steps[None]:
            made = self._existing(name)
            yield from self._lifecycle.ensure_running(made)
            self._containers.marks.set_prepared(name)
            self._firewall.forward(made)

        steps: list[NamedStep] = [("Cloning the template", container), ("Starting the container", start)]
        return iter(steps)


def _row(item: Container) -> Service:
    return {
        "service": item.name,
        "state": item.state.lower(),
        "address": item.address,
        "forwards": [f"{own.port}:{own.target}" for own in item.forwards],
        "autostart": item.config.get("boot.autostart") == "true",
    }
