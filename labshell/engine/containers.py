"""The lab's containers: found by owner mark, cloned safely, started, stopped, looked into.

pylxd's objects go stale, so everything is read afresh and changed with patch, never with save.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from labshell import shown
from labshell.config import Config
from labshell.engine import engine_logs, records
from labshell.engine.client import (
    CALL_SECONDS,
    COPY_SECONDS,
    LEFT_SNAPSHOT,
    WAIT_STEP_SECONDS,
    DiskFull,
    Engine,
    GpuMissing,
    asking,
    patient,
)
from labshell.engine.inside import Inside
from labshell.engine.network import Network
from labshell.engine.pools import Pools
from labshell.engine.proxies import OWN as OWN_PROXY
from labshell.engine.proxies import Proxies
from labshell.engine.records import Usage
from labshell.engine.reserve import PARTS, WHOLE, Reserve
from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.host import machine
from labshell.language import mark
from labshell.model import addresses
from labshell.model.container import Container, Hold, OwnForward
from labshell.model.ports import SSH
from labshell.model.settings import disk_size, engine_config, engine_devices, replaced_devices
from labshell.model.snapshots import Snapshot
from labshell.model.usage import is_full

log = logging.getLogger(__name__)

STOP_SECONDS = 30  # a forced stop takes one
BANNER_SECONDS = 10.0
STATES_AT_ONCE = 4
ROOM_BYTES = 4 << 20  # what has to be left on a disk for the engine to write there
EXPORT_SECONDS = 24 * 3600  # a terabyte, compressed by one processor, takes some hours
IDLE_STEP_SECONDS = 0.3
VOLATILE = "volatile."  # how the keys begin that are the engine's own
NOT_TAKEN_OVER = {"eth0", "root"}  # devices
CHANGE, KEEP, RESTORE = mark("be changed"), mark("be kept"), mark("be restored")
ACTIONS = {"start": mark("be started"), "stop": mark("be stopped"), "unfreeze": mark("be thawed")}


def containers_of(config: Config, engine: Engine) -> Containers:
    """The containers of the host that a configuration describes."""
    network = Network(engine, config.network, is_labs_own=not config.has_ports)
    return Containers(engine, network, config.pool, config.paths.state, nvidia_runtime=config.nvidia_runtime)


class Containers:
    """The lab's containers."""

    def __init__(
        self, engine: Engine, network: Network, pool: str, state: Path, *, nvidia_runtime: bool = False
    ) -> None:
        self._engine = engine
        self.network = network
        self._pool = pool
        self.pools = Pools(engine)
        self.proxies = Proxies(engine)
        self._nvidia_runtime = nvidia_runtime
        self.inside = Inside(engine, state)
        self._reserve = Reserve(engine)

    # Reading -------------------------------------------------------------------------------------------

    def get(self, name: str) -> Container | None:
        """The container of that name, whoever owns it."""
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
        with asking(name, "be read"):
            try:
                answer = self._engine.instance(name).get(params={"recursion": 1} if with_state else {})
            except NotFound:
                return None
            return dict(answer.json()["metadata"])

    def all(self) -> list[Container]:
        """Every instance of the engine, ours or not."""
        with asking("", "be listed"):
            answer = self._engine.api.instances.get(params={"recursion": 1})
            return [records.container_of(item) for item in answer.json()["metadata"]]

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
        with asking(container.name, "be read"):
            state = self._engine.instance(container.name).state.get().json()["metadata"]
        return self._with_disk(container, records.usage_of(state))

    def _with_disk(self, container: Container, used: Usage) -> Usage:
        return replace(used, disk=self.pools.held_by(container) or used.disk)

    def all_with_usage(self) -> list[tuple[Container, Usage]]:
        """Every instance with what it uses.

        The engine's own answer to both at once took four times as long (500 instances, 58 of them running): it
        looks into those that are stopped, too.
        """
        with asking("", "be listed"):
            found = self._engine.api.instances.get(params={"recursion": 1}).json()["metadata"]
            running = [item["name"] for item in found if item["status"] == "Running"]
            with ThreadPoolExecutor(STATES_AT_ONCE) as threads:
                states = dict(zip(running, threads.map(self._state, running), strict=True))
        with_state = [{**item, "state": states.get(item["name"], {})} for item in found]
        described = [(self._described(item), records.usage_of(item["state"])) for item in with_state]
        held = {pool: self.pools.held(pool) for pool in {container.pool for container, _ in described}}
        return [(item, replace(used, disk=held[item.pool].get(item.name) or used.disk)) for item, used in described]

    def _described(self, item: Mapping[str, Any]) -> Container:
        found = records.container_of(item)
        if self.network.is_labs_own:
            return replace(found, address=self.network.believed(found.address))
        return found

    def _state(self, name: str) -> dict[str, Any]:
        """What the engine says of a running container; nothing if it has gone meanwhile."""
        try:
            return dict(self._engine.instance(name).state.get().json()["metadata"])
        except (NotFound, UsageError):
            return {}

    def usage_of_all(self) -> dict[str, Usage]:
        """What every running container of a user's uses."""
        return {
            container.name: used
            for container, used in self.all_with_usage()
            if container.state == "Running" and container.owner == container.name
        }

    def own_disk(self, container: Container) -> tuple[int, int] | None:
        """Bytes used and in all of the container's own disk; None if it has no limit, or the pool can set none."""
        limit = shown.bytes_of(container.config.get("disk", ""))
        used = self.usage(container).disk if limit else None
        return (used, limit) if used and limit else None

    def addresses_taken(self) -> set[str]:
        """Addresses on the bridge that are pinned or leased to any instance."""
        pinned = {container.address for container in self.all() if container.address}
        return pinned | {address for _, address in self.network.leases()}

    def current_address(self, name: str) -> str | None:
        """The IPv4 address of a container: the engine's DHCP server's word, not its own but on the lab's network."""
        with asking(name, "be read"):
            instance = self._engine.instance(name)
            if self.network.is_labs_own:
                return self.network.believed(records.current_address(instance.state.get().json()["metadata"]))
            hardware_address = records.hardware_address(instance.get().json()["metadata"])
        leases = self.network.leases() if hardware_address else []
        return next((address for owner, address in leases if owner == hardware_address), None)

    def adopt(self, name: str, uid: int, address: str, host_key: str) -> None:
        """Make a container that was made by hand its person's; what is inside stays as it is.

        The address is remembered and pinned while it is stopped: a running one would lose its network.
        """
        marks = {records.HOST_KEY: host_key, records.ADDRESS: address}
        config = {**records.SAFE_CONFIG, **records.owned_by(name, uid), records.PREPARED: "true", **marks}
        # These need a restart, or re-own every file: as they were, and doctor says so.
        for key in ("security.nesting", "security.idmap.isolated", "security.privileged"):
            del config[key]
        self._set(name, config)

    def give_owner(self, name: str, user: str, uid: int) -> None:
        """Mark a container as somebody's, whatever else it is."""
        self._set(name, records.owned_by(user, uid))

    # Changing ------------------------------------------------------------------------------------------

    def check_template(self, name: str) -> None:
        """Refuse what clones cannot be made from: it must be a stopped container or the alias of an image."""
        template = self.get(name)
        if template is None:
            if not self._is_image(name):
                raise UsageError(
                    "There is no template {name}; make one with: labshell-admin template build", name=name
                )
        elif template.owner is not None:
            raise UsageError("{name} is somebody's container, not a template.", name=name)
        elif template.state != "Stopped":
            raise UsageError("The template {name} is running; stop it first: lxc stop {name}", name=name)

    def _is_image(self, alias: str) -> bool:
        with asking(alias, "be read"):
            try:
                self._engine.api.images.aliases[alias].get()
            except NotFound:
                return False
        return True

    def _source(self, template: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """What to copy from, in the engine's words, and what a copy would inherit: config, devices, profiles."""
        with asking(template, "be read"):
            if self._is_image(template) and self.get(template) is None:
                profile = self._engine.api.profiles["default"].get().json()["metadata"]
                inherited = {"expanded_devices": profile["devices"], "profiles": ["default"]}
                return {"type": "image", "alias": template}, inherited
            inherited = self._engine.instance(template).get().json()["metadata"]
            return {"type": "copy", "source": template, "instance_only": True}, inherited

    def clone(self, template: str, name: str, user: str, uid: int | None, address: str) -> None:
        """Copy the template to the stopped container `name` of `user`'s, or of nobody's, with a pinned address.

        Everything safe is said here again, whatever the template has, and what leads to the host is left out.
        """
        source, inherited = self._source(template)
        devices = {
            name: {"type": "none"}
            for name, device in inherited["expanded_devices"].items()
            if device["type"] == "proxy"
        }
        devices["root"] = dict(inherited["expanded_devices"].get("root", {"type": "disk", "path": "/"}))
        if self._pool:
            devices["root"]["pool"] = self._pool
        hardware_address = addresses.hardware_address(secrets.token_bytes(3))
        devices["eth0"] = self.network.nic(address, hardware_address)
        # An empty value takes an inherited key away.
        inherited_keys = [key for key in inherited.get("config", {}) if key.startswith(records.LEFT_OUT)]
        config = {
            **dict.fromkeys([*inherited_keys, *records.NEVER_INHERITED], ""),
            **records.SAFE_CONFIG,
            **records.owned_by(user, uid),
            records.CLONED_FROM: template,
            records.FORWARDS: "[]",
            records.HARDWARE_ADDRESS: hardware_address,
        }
        body = {
            "name": name,
            "source": source,
            "profiles": inherited.get("profiles", []),
            "config": config,
            "devices": devices,
        }
        with asking(name, "be made"):
            self._engine.wait(self._engine.api.instances.post(json=body), COPY_SECONDS)

    def copy_for_template(self, source: str, name: str) -> None:
        """Copy a container, running or not, to the stopped container `name`: without address, marks and devices."""
        with asking(source, "be copied"):
            old = self._engine.instance(source).get().json()["metadata"]
            gone = [key for key in old["config"] if key.startswith(records.LEFT_OUT)]
            devices: dict[str, dict[str, str]] = {key: {"type": "none"} for key in old["devices"]}
            devices["root"] = dict(old["expanded_devices"]["root"])
            devices["eth0"] = self.network.nic(None, addresses.hardware_address(secrets.token_bytes(3)))
            body = {
                "name": name,
                "source": {"type": "copy", "source": source, "instance_only": True},
                "profiles": old["profiles"],
                "config": dict.fromkeys(gone, ""),
                "devices": devices,
            }
            self._engine.wait(self._engine.api.instances.post(json=body), COPY_SECONDS)
        self._reserve.free(name)

    def mark_service(self, name: str, *, autostart: bool) -> None:
        """Mark a container as belonging to no person; with `autostart` the engine starts it at boot."""
        self._set(name, {records.SERVICE: "true", "boot.autostart": "true" if autostart else ""})

    def mark_template(self, name: str) -> None:
        self._set(name, {records.TEMPLATE: "true"})

    def set_host_key(self, name: str, host_key: str) -> None:
        """Remember the container's public host key, for the card and for known_hosts."""
        self._set(name, {records.HOST_KEY: host_key})

    def set_forwards(self, name: str, forwards: Collection[OwnForward]) -> None:
        self._set(name, {records.FORWARDS: json.dumps([asdict(own) for own in forwards])})

    def mark_prepared(self, name: str) -> None:
        """From here on it is somebody's: never deleted to begin again."""
        self._set(name, {records.PREPARED: "true"})

    def set_profile(self, name: str, profile: str) -> None:
        """The profile of settings that it was given last, for show."""
        self._set(name, {records.PROFILE: profile})

    def set_kept(self, name: str, kept: str) -> None:
        """Remember which container was put aside for this one; empty for none."""
        self._set(name, {records.KEPT: kept})

    def set_hold(self, name: str, hold: Hold | None) -> None:
        """Remember that a container is not to be stopped for being idle; None takes that back."""
        self._set(name, {records.HOLD: json.dumps(asdict(hold)) if hold else ""})

    def set_archived(self, name: str, text: str) -> None:
        """Keep a text with the container, to go into its archive."""
        self._set(name, {records.ARCHIVED: text})

    def archived(self, name: str) -> str:
        return str(self.settings(name)["config"].get(records.ARCHIVED, ""))

    def give_to(self, name: str, user: str, uid: int, address: str) -> None:
        """Make a container somebody's: marks of theirs, an address of its own, and everything safe again."""
        gone = dict.fromkeys((records.KEPT, records.ARCHIVED, records.RESTORING), "")
        marks = {**records.SAFE_CONFIG, **records.owned_by(user, uid), records.PREPARED: "true", **gone}
        del marks["security.nesting"]  # as it was

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            config.update(marks)
            self._connect(config, devices, address)

        self._engine.rewrite(name, change)

    def import_archive(self, name: str, path: Path) -> None:
        """Make the stopped container `name` from a file that export() wrote."""
        headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name}
        if self._pool:
            headers["X-LXD-pool"] = self._pool
        with asking(name, "be made"), path.open("rb") as file:
            client = self._engine.new_client(COPY_SECONDS)
            self._engine.wait(client.api.instances.post(data=file, headers=headers), EXPORT_SECONDS)

    def set_address(self, name: str, address: str | None) -> None:
        """Connect a stopped container to the network, with this address pinned where addresses are pinned."""
        self._engine.rewrite(name, lambda config, devices, _: self._connect(config, devices, address))

    def take_off_network(self, name: str) -> None:
        """Leave a stopped container without a network, so that it holds nobody's address."""

        def change(_: object, devices: dict[str, dict[str, str]], __: object) -> None:
            _drop_forwards(devices)
            devices["eth0"] = {"type": "none"}

        self._engine.rewrite(name, change)

    def _connect(self, config: dict[str, str], devices: dict[str, dict[str, str]], address: str | None) -> None:
        hardware_address = config.get(records.HARDWARE_ADDRESS) or addresses.hardware_address(secrets.token_bytes(3))
        config.update({records.HARDWARE_ADDRESS: hardware_address, records.ADDRESS: ""})
        _drop_forwards(devices)
        devices["eth0"] = self.network.nic(address, hardware_address)

    def configure(self, name: str, settings: Mapping[str, str]) -> None:
        """Make the container what `settings` say; what they do not mention stays. A running one changes at once.

        Only nesting waits for the next start.
        """
        size = disk_size(settings)
        self.check_disk(name, size or "")

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], root: dict[str, str]) -> None:
            config |= engine_config(settings, nvidia_runtime=self._nvidia_runtime)
            if "expires" in settings:
                config[records.EXPIRES] = settings["expires"].replace("none", "")
            if "gpus" in settings:
                config[records.GPUS_ASIDE] = ""
            for device in [device for device in devices if device.startswith(replaced_devices(settings))]:
                del devices[device]
            devices |= engine_devices(settings)
            if size is not None:
                devices["root"] = {**root, "size": size} if size else {k: v for k, v in root.items() if k != "size"}

        container = self.get(name) if size is not None else None
        if container is not None and self.is_disk_full(container):
            self._reserve.free(name)  # or the engine could not note the new limit on it
        self._engine.rewrite(name, change)
        container = self.get(name) if size else None
        if container is not None and not self.is_disk_full(container):
            self._keep_reserve(container, (WHOLE, *PARTS))

    def is_disk_full(self, container: Container) -> bool:
        """Whether a container has a disk limit, and next to nothing is left of it."""
        return is_full(*(self.own_disk(container) or (0, 0)))

    def check_disk(self, name: str, size: str, snapshot: str = "") -> None:
        """Refuse a disk limit that is less than what is in a container, or in one of its snapshots, on btrfs.

        LXD 5.0 sets it there, says that it could not, and cannot take it back. "" is no limit.
        """
        limit = shown.bytes_of(size)
        if limit is None:
            return
        container = self.get(name)
        if container is None:
            return
        held = self.pools.held_by_snapshot(container, snapshot) if snapshot else self.pools.held_by(container)
        if held is not None and limit < held + ROOM_BYTES:
            raise UsageError(
                "A disk limit of {size} is too little for {name}, in which there are {held}.",
                size=size,
                name=snapshot or name,
                held=shown.size(held),
            )

    def set_gpus_aside(self, name: str) -> None:
        """Take the GPUs, which cannot be had just now, away from a stopped container, and remember them."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            aside = {key: device for key, device in devices.items() if device.get("type") == "gpu"}
            for device in aside:
                del devices[device]
            runtime = config.pop("nvidia.runtime", "")
            config[records.GPUS_ASIDE] = json.dumps({"devices": aside, "runtime": runtime})

        self._engine.rewrite(name, change)

    def bring_gpus_back(self, name: str) -> None:
        """Give a stopped container its GPUs again."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            aside = json.loads(config.pop(records.GPUS_ASIDE))
            devices |= aside["devices"]
            config["nvidia.runtime"] = aside["runtime"]

        self._engine.rewrite(name, change)

    def take_over(self, source: str, target: str, *, only: bool) -> None:
        """Give `target` what `source` has today: limits, GPUs, mounts, own forwards; not its network.

        `only` that, where `target` is the person's of before: what has been taken from them since does not come back.
        Else it is beside what a clone has of its template.
        """
        with asking(source, "be read"):
            old = self._engine.instance(source).get().json()["metadata"]
        given = {key: value for key, value in old["config"].items() if key.startswith(records.TAKEN_OVER)}
        added = {name: device for name, device in old["devices"].items() if name not in NOT_TAKEN_OVER}
        _drop_forwards(added)
        size = old["expanded_devices"]["root"].get("size")

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], root: dict[str, str]) -> None:
            if only:
                for key in [key for key in config if key.startswith(records.TAKEN_OVER)]:
                    del config[key]
                for name in devices.keys() - NOT_TAKEN_OVER:
                    del devices[name]
                root.pop("size", None)
                devices["root"] = root
            config |= given
            devices |= added
            if size:
                devices["root"] = {**root, "size": size}

        self._engine.rewrite(target, change)

    def rename(self, name: str, new_name: str) -> None:
        """Give a stopped container another name."""
        with asking(name, "be renamed"):
            self._engine.wait(self._engine.instance(name).post(json={"name": new_name}), COPY_SECONDS)

    def wait_until_idle(self, name: str) -> None:
        """Until the engine is at nothing any more with this container, after a daemon that did not wait for it."""
        deadline = time.monotonic() + COPY_SECONDS
        with asking(name, "be read"):
            while self._is_busy(name):
                if time.monotonic() > deadline:
                    raise TryAgain("The container is busy with something else; try again in a moment.")
                time.sleep(IDLE_STEP_SECONDS)

    def _is_busy(self, name: str) -> bool:
        operations = self._engine.api.operations.get(params={"recursion": 1}).json()["metadata"] or {}
        return any(
            url.rpartition("/")[2] == name
            for operation in operations.get("running") or []
            for url in (operation.get("resources") or {}).get("instances") or []
        )

    def _set(self, name: str, config: Mapping[str, str]) -> None:
        with asking(name, CHANGE):
            self._patch(name, {"config": dict(config)})

    def start(self, name: str, timeout_seconds: int) -> None:
        """Start, or thaw if frozen; nothing if it runs already."""
        container = self.get(name)
        if container is None:
            raise NoContainer("There is no container {name}.", name=name)
        action = {"Running": "", "Frozen": "unfreeze"}.get(container.state, "start")
        if not action:
            return
        try:
            on_reserve = action == "start" and bool(container.config.get("disk")) and self._make_room(container)
            try:
                self._change_state(name, {"action": action}, timeout_seconds)
            finally:
                if on_reserve:
                    self._keep_reserve(container, PARTS)
        except LabshellError:
            now = self.get(name)
            if now is not None and now.state == "Running":
                return  # somebody else started it meanwhile: the engine itself does after a reboot
            if action == "start" and machine.remove_left_interface(container.port_on_host):
                # An engine that was killed while it started the container has left its port behind.
                log.warning("an interface that was left is removed", extra={"interface": container.port_on_host})
                self._change_state(name, {"action": action}, timeout_seconds)
                return
            why = self._log_of_start(name)
            log.warning("start failed", extra={"container": name, "lxc_log": why})
            if container.config.get("nvidia.runtime") == "true" and "nvidia" in why.lower():
                raise GpuMissing("The container cannot be started: the host's NVIDIA container tools fail.") from None
            raise

    def _make_room(self, container: Container) -> bool:
        """Have room for a start on a disk that has a limit; whether its reserve had to be given up for it."""
        name = container.name
        is_given_up = self.is_disk_full(container) and self._reserve.free(name)
        try:
            patient(self.try_disk)(name, ACTIONS["start"])
        except DiskFull:  # the figure may be some seconds old
            if is_given_up or not self._reserve.free(name):
                raise
            is_given_up = True
            patient(self.try_disk)(name, ACTIONS["start"])
        used, total = self.own_disk(container) or (0, 5 * WHOLE)  # not counted yet: the first limit of a pool
        if total - used > 4 * WHOLE and not is_given_up:
            self._keep_reserve(container, (WHOLE,))
        return is_given_up

    def _keep_reserve(self, container: Container, sizes: Sequence[int]) -> None:
        """Have a reserve again. Without one the container works, so no failure is anything but logged."""
        with contextlib.suppress(LabshellError):
            if not self.pools.can_limit(container.pool) or self._reserve.keep(container.name, sizes):
                return
        log.warning("no reserve on its disk", extra={"container": container.name})

    def try_disk(self, name: str, action: str = CHANGE) -> None:
        """Have the engine write what it writes on the container's disk at every change; DiskFull if it cannot.

        A start that fails on a full disk makes LXD 5.0 count it as in use until the engine is restarted, and then it
        restores no snapshot there, which would make room.
        """
        with asking(name, action):
            self._patch(name, {"config": {}})

    def stop(self, name: str, timeout_seconds: int, *, force: bool = False) -> None:
        """Shut down cleanly within the limit, or at once with `force`; nothing if it is stopped.

        TryAgain if a clean shutdown took longer: the container still runs then.
        """
        container = self.get(name)
        if container is None or container.state == "Stopped":
            return
        if container.state == "Frozen":
            self._change_state(name, {"action": "unfreeze"}, timeout_seconds)
        body = {"action": "stop", "force": force, "timeout": timeout_seconds}
        try:
            self._change_state(name, body, timeout_seconds + WAIT_STEP_SECONDS)
        except LabshellError:
            container = self.get(name)
            if container is None or container.state == "Stopped":
                return
            if force:
                raise
            raise TryAgain(
                "The container did not shut down within {seconds} seconds and still runs. "
                "Use --force to stop it the hard way.",
                seconds=timeout_seconds,
            ) from None

    @patient
    def delete(self, name: str) -> None:
        """Make sure that there is no such container: stopped by force first if it runs."""
        self.stop(name, STOP_SECONDS, force=True)
        with asking(name, "be deleted"), contextlib.suppress(NotFound):
            self._engine.wait(self._engine.instance(name).delete(), COPY_SECONDS)
        engine_logs.remove(self._engine.path, name)

    # Snapshots -----------------------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[Snapshot]:
        with asking(name, "be read"):
            items = self._engine.instance(name).snapshots.get(params={"recursion": 1}).json()["metadata"] or []
        found = [records.snapshot_of(item) for item in items]
        return sorted(found, key=lambda snapshot: snapshot.created)

    def take_snapshot(self, name: str, label: str) -> None:
        """Keep the state of a container; DiskFull, and nothing is begun, if its own disk takes nothing any more.

        On a full disk LXD 5.0 makes a snapshot that it then does not know, and never deletes that container again. If
        it is asked for the same once more, it takes that one for the new one.
        """
        container = self.get(name)
        if container is not None and self.pools.has_on_disk(container, label):
            raise LabshellError(LEFT_SNAPSHOT, name=name, action=KEEP)
        patient(self.try_disk)(name, KEEP)
        with asking(name, KEEP):
            body = {"name": label, "stateful": False}
            self._engine.wait(self._engine.instance(name).snapshots.post(json=body), COPY_SECONDS)

    def settings(self, name: str) -> dict[str, Any]:
        """Config and devices as they are now, for put_back().

        Nothing of the engine's own but the hardware address, which is another one after a rebuild: it has the lease
        of the IPv4 address, which the DHCP server gives to no other for an hour.
        """
        with asking(name, "be read"):
            found = self._engine.instance(name).get().json()["metadata"]
        config = {
            key: value
            for key, value in found["config"].items()
            if not key.startswith(VOLATILE) or key == records.GIVEN_HARDWARE_ADDRESS
        }
        return {"config": config, "devices": found["devices"]}

    def put_back(self, name: str, settings: Mapping[str, Any]) -> None:
        """Config and devices as settings() gave them, whatever has become of them since."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            volatile = {key: value for key, value in config.items() if key.startswith(VOLATILE)}
            for table, then in ((config, volatile | settings["config"]), (devices, settings["devices"])):
                table.clear()
                table.update(then)

        self._engine.rewrite(name, change)

    @patient
    def restore_snapshot(self, name: str, label: str) -> None:
        """Take the files and settings of a stopped container back to a snapshot."""
        with asking(name, RESTORE):
            self._engine.wait(self._engine.instance(name).put(json={"restore": label}), COPY_SECONDS)

    def mark_restoring(self, name: str, token: str) -> None:
        """Set a mark that a restore takes away, with all other settings: so it tells whether one has happened."""
        self._set(name, {records.RESTORING: token})

    def is_marked_restoring(self, name: str, token: str) -> bool:
        return bool(self.settings(name)["config"].get(records.RESTORING) == token)

    def delete_snapshot(self, name: str, label: str) -> None:
        with asking(name, "lose a snapshot"), contextlib.suppress(NotFound):
            self._engine.wait(self._engine.instance(name).snapshots[label].delete(), COPY_SECONDS)

    # Out and in again ---------------------------------------------------------------------------------

    @property
    def backups_folder(self) -> Path:
        """Where the engine makes an archive before it is fetched."""
        return self._engine.path.parent / "backups"

    def export(self, name: str, target: Path) -> None:
        """Write the engine's own backup of a container, without its snapshots, to the new file `target`."""
        self._reserve.free(name)
        with asking(name, "be archived"):
            backups = self._engine.instance(name).backups
            # The fastest gzip: measured, 17 s for 29 s, and the file is larger by a tenth.
            body = {"name": "labshell", "instance_only": True, "compression_algorithm": "gzip -1"}
            with contextlib.suppress(NotFound):
                self._engine.wait(backups["labshell"].delete(), COPY_SECONDS)
            try:
                self._engine.wait(backups.post(json=body), EXPORT_SECONDS)
                with backups["labshell"].export.get(stream=True, timeout=COPY_SECONDS) as answer:
                    _save(answer, target)
            finally:
                with contextlib.suppress(NotFound):
                    self._engine.wait(backups["labshell"].delete(), COPY_SECONDS)

    def _patch(self, name: str, body: dict[str, Any]) -> None:
        answer = self._engine.instance(name).patch(json=body)
        if answer.json().get("type") == "async":
            self._engine.wait(answer, CALL_SECONDS)

    @patient
    def _change_state(self, name: str, body: dict[str, Any], timeout_seconds: int) -> None:
        with asking(name, ACTIONS[body["action"]]):
            self._engine.wait(self._engine.instance(name).state.put(json=body), timeout_seconds)

    def _log_of_start(self, name: str) -> str:
        """The end of what liblxc wrote: the engine's own message on a failed start says nothing."""
        try:
            return str(self._engine.instance(name).logs["lxc.log"].get(is_api=False).text)[-2000:]
        except (LXDAPIException, ClientConnectionFailed, requests.RequestException):
            return ""


def _owned(container: Container | None, user: str, uid: int) -> Container:
    if container is None:
        raise NoContainer("You have no container on this machine yet; ask the administrator for one.")
    if not container.belongs_to(user, uid):
        raise NoContainer(
            "The container {name} is not marked as yours; ask the administrator to look at it.", name=user
        )
    return container


def _drop_forwards(devices: dict[str, dict[str, str]]) -> None:
    """Without our own proxy devices, which hold the address that changes; they are made again when it is known."""
    for name in [name for name in devices if name.startswith(OWN_PROXY)]:
        del devices[name]


def _save(answer: requests.Response, target: Path) -> None:
    try:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except requests.RequestException:
        raise
    except OSError as error:
        raise LabshellError("{path} cannot be written: {why}.", path=target, why=error.strerror) from error


def ssh_answers(
    address: str, port: int = SSH, *, connect_seconds: float = 1.0, banner_seconds: float = BANNER_SECONDS
) -> bool:
    """Whether an SSH server shows its banner there.

    A server whose port is open gets `banner_seconds`: on a loaded host it forks late, and a look that leaves earlier
    leaves it another unfinished connection, until it takes none at all (MaxStartups).
    """
    try:
        with socket.create_connection((address, port), timeout=connect_seconds) as connection:
            connection.settimeout(banner_seconds)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
