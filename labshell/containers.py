"""The lab's containers: found by owner mark, cloned safely, started, stopped, looked into.

pylxd's objects go stale, so everything is read afresh and changed with patch, never with save. Files inside a
container are touched only through the engine's API, never by a path on the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from labshell import policy
from labshell.engine import CALL_SECONDS, COPY_SECONDS, WAIT_STEP_SECONDS, Engine, asking, settled
from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.policy import Container, OwnForward, Snapshot

log = logging.getLogger(__name__)

STOP_SECONDS = 30  # a forced stop takes one
OWNER = "user.labshell.owner"
UID = "user.labshell.uid"
TEMPLATE = "user.labshell.template"
PREPARED = "user.labshell.prepared"
HOST_KEY = "user.labshell.host-key"
FORWARDS = "user.labshell.forwards"

SAFE_CONFIG = {
    "security.privileged": "false",
    "security.nesting": "false",
    "security.idmap.isolated": "true",
    "security.devlxd": "false",
}
# What a clone never inherits from its template.
LEFT_OUT = ("raw.", "security.", "user.", "boot.", "cloud-init.", "linux.kernel_modules")
SAFE_NIC = {
    "security.mac_filtering": "true",
    "security.ipv4_filtering": "true",
    "security.ipv6_filtering": "true",
    "security.port_isolation": "true",
}


@dataclass(frozen=True)
class Usage:
    """What a container uses just now, in bytes and numbers; None where the engine does not say."""

    memory: int | None
    disk: int | None
    processes: int | None
    cpu_seconds: float | None


@dataclass(frozen=True)
class Bridge:
    """The managed bridge the containers are on: `address` is the gateway's with prefix, 10.83.0.1/24."""

    name: str
    address: str


class Containers:
    """The lab's containers."""

    def __init__(self, engine: Engine, network: str, pool: str) -> None:
        self._engine = engine
        self._network = network
        self._pool = pool

    # Reading -------------------------------------------------------------------------------------------

    def get(self, name: str) -> Container | None:
        """The container of that name, whoever owns it."""
        with asking(name, "be read"):
            try:
                answer = self._engine.instance(name).get()
            except NotFound:
                return None
            return _container(answer.json()["metadata"])

    def owned(self, user: str, uid: int) -> Container:
        """The container that is `user`'s by its owner mark; NoContainer otherwise."""
        container = self.get(user)
        if container is None:
            raise NoContainer("You have no container on this machine yet; ask the administrator for one.")
        if not container.belongs_to(user, uid):
            raise NoContainer(
                "The container {name} is not marked as yours; ask the administrator to look at it.", name=user
            )
        return container

    def all(self) -> list[Container]:
        """Every instance of the engine, ours or not."""
        with asking("", "be listed"):
            answer = self._engine.api.instances.get(params={"recursion": 1})
            return [_container(item) for item in answer.json()["metadata"]]

    def usage(self, name: str) -> Usage:
        with asking(name, "be read"):
            state = self._engine.instance(name).state.get().json()["metadata"]
        disk = (state.get("disk") or {}).get("root", {}).get("usage")
        seconds = (state.get("cpu") or {}).get("usage", 0) / 1e9
        return Usage(
            memory=(state.get("memory") or {}).get("usage") or None,
            disk=disk or None,
            processes=state["processes"] if state.get("processes", -1) >= 0 else None,
            cpu_seconds=seconds or None,
        )

    def bridge(self) -> Bridge:
        with asking("", "be read"):
            try:
                network = self._engine.api.networks[self._network].get().json()["metadata"]
            except NotFound:
                raise LabshellError(
                    "The engine has no network {network}; set network in labshell.toml.", network=self._network
                ) from None
        address = network.get("config", {}).get("ipv4.address", "none")
        if "/" not in address:
            raise LabshellError(
                "The network {network} has no IPv4 address of its own; forwarding needs one.", network=self._network
            )
        return Bridge(self._network, address)

    def addresses_taken(self) -> set[str]:
        """Addresses on the bridge that are pinned or leased to any instance."""
        with asking("", "be read"):
            leases = self._engine.api.networks[self._network].leases.get().json()["metadata"] or []
        pinned = {container.address for container in self.all() if container.address}
        return pinned | {lease["address"] for lease in leases if ":" not in lease["address"]}

    def proxy_ports(self) -> set[int]:
        """Host ports that LXD proxy devices take."""
        with asking("", "be listed"):
            instances = self._engine.api.instances.get(params={"recursion": 1}).json()["metadata"]
        ports = set()
        for instance in instances:
            for device in (instance.get("expanded_devices") or {}).values():
                port = device.get("listen", "").rpartition(":")[2] if device.get("type") == "proxy" else ""
                if port.isdigit():
                    ports.add(int(port))
        return ports

    def pool_is_full(self, name: str, reserve_bytes: int) -> bool:
        """Whether the pool of this container has less than `reserve_bytes` left."""
        with asking(name, "be read"):
            devices = self._engine.instance(name).get().json()["metadata"]["expanded_devices"]
            pool = devices.get("root", {}).get("pool", "")
            space = self._engine.api["storage-pools"][pool].resources.get().json()["metadata"].get("space", {})
        return bool(space.get("total")) and space["total"] - space.get("used", 0) < reserve_bytes

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

    def clone(self, template: str, user: str, uid: int, address: str, limits: Mapping[str, str]) -> None:
        """Copy the template to a stopped container of `user`'s with a pinned address.

        `limits` has limits.cpu, limits.memory and limits.processes in the engine's notation, and `disk`.
        Everything safe is said here again, whatever the template has, and what leads to the host is left out.
        """
        limits = dict(limits)
        disk = limits.pop("disk", "")
        source, inherited = self._source(template)
        devices = {
            name: {"type": "none"}
            for name, device in inherited["expanded_devices"].items()
            if device["type"] == "proxy"
        }
        devices["root"] = dict(inherited["expanded_devices"].get("root", {"type": "disk", "path": "/"}))
        if self._pool:
            devices["root"]["pool"] = self._pool
        if disk:
            devices["root"]["size"] = disk
        devices["eth0"] = {
            "type": "nic", "name": "eth0", "network": self._network, "ipv4.address": address, **SAFE_NIC,
        }  # fmt: skip
        # An empty value takes an inherited key away.
        inherited_keys = [key for key in inherited.get("config", {}) if key.startswith(LEFT_OUT)]
        config = {
            **dict.fromkeys([*inherited_keys, TEMPLATE, PREPARED, HOST_KEY, "boot.autostart"], ""),
            **SAFE_CONFIG, **limits, OWNER: user, UID: str(uid), FORWARDS: "[]",
        }  # fmt: skip
        body = {
            "name": user,
            "source": source,
            "profiles": inherited.get("profiles", []),
            "config": config,
            "devices": devices,
        }
        with asking(user, "be made"):
            self._engine.wait(self._engine.api.instances.post(json=body), COPY_SECONDS)

    def set_host_key(self, name: str, host_key: str) -> None:
        """Remember the container's public host key, for the card and for known_hosts."""
        with asking(name, "be changed"):
            self._patch(name, {"config": {HOST_KEY: host_key}})

    def set_forwards(self, name: str, forwards: Collection[OwnForward]) -> None:
        with asking(name, "be changed"):
            self._patch(name, {"config": {FORWARDS: json.dumps([asdict(own) for own in forwards])}})

    def mark_prepared(self, name: str) -> None:
        """From here on it is somebody's: never deleted to begin again."""
        with asking(name, "be changed"):
            self._patch(name, {"config": {PREPARED: "true"}})

    def start(self, name: str, timeout_seconds: int) -> None:
        """Start, or thaw if frozen; nothing if it runs already."""
        container = self.get(name)
        if container is None:
            raise NoContainer("There is no container {name}.", name=name)
        action = {"Running": "", "Frozen": "unfreeze"}.get(container.state, "start")
        if not action:
            return
        try:
            self._change_state(name, {"action": action}, timeout_seconds)
        except LabshellError:
            now = self.get(name)
            if now is not None and now.state == "Running":
                return  # somebody else started it meanwhile: the engine itself does after a reboot
            log.warning("start failed", extra={"container": name, "lxc_log": self._log_of_start(name)})
            raise

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

    def delete(self, name: str) -> None:
        """Make sure that there is no such container: stopped by force first if it runs."""
        if self.get(name) is None:
            return

        def delete() -> None:
            self.stop(name, STOP_SECONDS, force=True)
            with asking(name, "be deleted"), contextlib.suppress(NotFound):
                self._engine.wait(self._engine.instance(name).delete(), COPY_SECONDS)

        settled(delete)

    # Snapshots -----------------------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[Snapshot]:
        with asking(name, "be read"):
            items = self._engine.instance(name).snapshots.get(params={"recursion": 1}).json()["metadata"] or []
        found = [Snapshot(item["name"], item["created_at"], _positive(item.get("size"))) for item in items]
        return sorted(found, key=lambda snapshot: snapshot.created)

    def take_snapshot(self, name: str, label: str) -> None:
        with asking(name, "be kept"):
            body = {"name": label, "stateful": False}
            self._engine.wait(self._engine.instance(name).snapshots.post(json=body), COPY_SECONDS)

    def restore_snapshot(self, name: str, label: str) -> None:
        """Take the files back to a snapshot. A running container is stopped for it and started again.

        The engine takes settings back as well, and limits or forwards that were changed since would be undone:
        today's are put back.
        """
        with asking(name, "be restored"):
            instance = self._engine.instance(name)
            before = instance.get().json()["metadata"]
            self._engine.wait(instance.put(json={"restore": label}), COPY_SECONDS)
            after = instance.get().json()["metadata"]
            config = {key: "" for key in after["config"] if not key.startswith("volatile.")}
            config |= {key: value for key, value in before["config"].items() if not key.startswith("volatile.")}
            self._patch(name, {"config": config, "devices": before["devices"]})

    def delete_snapshot(self, name: str, label: str) -> None:
        with asking(name, "lose a snapshot"), contextlib.suppress(NotFound):
            self._engine.wait(self._engine.instance(name).snapshots[label].delete(), COPY_SECONDS)

    # Inside --------------------------------------------------------------------------------------------

    def put_file(self, name: str, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file of the container's root. One that is there is deleted first: the engine would keep its mode."""
        self.delete_file(name, path)
        headers = {"X-LXD-type": "file", "X-LXD-mode": f"0{mode:o}", "X-LXD-uid": "0", "X-LXD-gid": "0"}
        with asking(name, "take a file"):
            self._engine.instance(name).files.post(params={"path": path}, data=content, headers=headers)

    def delete_file(self, name: str, path: str) -> None:
        with asking(name, "lose a file"), contextlib.suppress(NotFound):
            self._engine.instance(name).files.delete(params={"path": path})

    def list_folder(self, name: str, path: str) -> list[str]:
        """The names in a folder inside the container; empty if there is no such folder."""
        with asking(name, "be read"):
            try:
                answer = self._engine.instance(name).files.get(params={"path": path}, is_api=False)
            except NotFound:
                return []
            try:
                entries = answer.json()["metadata"]
            except ValueError:
                return []  # a file, where a folder was expected
        return [entry for entry in entries or [] if isinstance(entry, str) and "/" not in entry]

    def run(self, name: str, argv: list[str], timeout_seconds: int = 60) -> tuple[int, str]:
        """Run a program inside as root; its exit status and what it printed, both streams, 64 KiB at most.

        With recorded output: the websockets of pylxd's execute() lose output when several run at once.
        """
        body = {
            "command": argv,
            "wait-for-websocket": False,
            "interactive": False,
            "record-output": True,
            "environment": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        }
        with asking(name, "run a command"):
            metadata = self._engine.wait(self._engine.instance(name).exec.post(json=body), timeout_seconds)
            output = [self._engine.recorded(url) for url in (metadata.get("output") or {}).values()]
        return int(metadata.get("return", 1)), "".join(output)[: 1 << 16]

    def export(self, name: str, target: Path) -> None:
        """Write the engine's own backup of a container, without its snapshots, to the new file `target`."""
        with asking(name, "be archived"):
            backups = self._engine.instance(name).backups
            body = {"name": "labshell", "instance_only": True, "compression_algorithm": "gzip"}
            with contextlib.suppress(NotFound):
                self._engine.wait(backups["labshell"].delete(), COPY_SECONDS)
            self._engine.wait(backups.post(json=body), COPY_SECONDS)
            try:
                with backups["labshell"].export.get(stream=True, timeout=COPY_SECONDS) as answer:
                    _save(answer, target)
            finally:
                self._engine.wait(backups["labshell"].delete(), COPY_SECONDS)

    def _patch(self, name: str, body: dict[str, Any]) -> None:
        answer = self._engine.instance(name).patch(json=body)
        if answer.json().get("type") == "async":
            self._engine.wait(answer, CALL_SECONDS)

    def _change_state(self, name: str, body: dict[str, Any], timeout_seconds: int) -> None:
        def change() -> None:
            with asking(name, body["action"]):
                self._engine.wait(self._engine.instance(name).state.put(json=body), timeout_seconds)

        settled(change)

    def _log_of_start(self, name: str) -> str:
        """The end of what liblxc wrote: the engine's own message on a failed start says nothing."""
        try:
            return str(self._engine.instance(name).logs["lxc.log"].get(is_api=False).text)[-2000:]
        except (LXDAPIException, ClientConnectionFailed, requests.RequestException):
            return ""


def _container(item: Mapping[str, Any]) -> Container:
    config = item.get("config") or {}
    nic = (item.get("expanded_devices") or {}).get("eth0", {})
    uid = config.get(UID, "")
    return Container(
        name=item["name"],
        state=item["status"],
        owner=config.get(OWNER) or None,
        uid=int(uid) if uid.isdigit() else None,
        address=nic.get("ipv4.address") or None,
        is_template=config.get(TEMPLATE) == "true",
        is_prepared=config.get(PREPARED) == "true",
        host_key=config.get(HOST_KEY, ""),
        started=item.get("last_used_at", ""),
        forwards=_forwards(config.get(FORWARDS, "")),
        config={**(item.get("expanded_config") or config), "disk": _root_size(item)},
    )


def _forwards(text: str) -> tuple[OwnForward, ...]:
    """The user's own forwards; what is not in our form is none, and said so in the journal."""
    try:
        return tuple(OwnForward(**item) for item in json.loads(text or "[]"))
    except (ValueError, TypeError):
        log.warning("unreadable forwards", extra={"text": text[:200]})
        return ()


def _positive(number: int | None) -> int | None:
    """The engine says -1 or 0 where it does not know."""
    return number if number and number > 0 else None


def _root_size(item: Mapping[str, Any]) -> str:
    size = (item.get("expanded_devices") or {}).get("root", {}).get("size", "")
    return str(size)


def _save(answer: requests.Response, target: Path) -> None:
    try:
        with target.open("xb") as file:
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except requests.RequestException:
        raise
    except OSError as error:
        raise LabshellError("{path} cannot be written: {why}.", path=target, why=error.strerror) from error


def ssh_answers(address: str, port: int = policy.SSH, timeout_seconds: float = 1.0) -> bool:
    """Whether an SSH server shows its banner there."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
