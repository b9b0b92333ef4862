"""The container engine, through pylxd. The one module that knows which engine it is and how it fails.

pylxd's objects go stale and its errors are strings, so: fresh reads, patch() instead of save(), operations
started without waiting and then waited for with a limit, and every failure turned into one sentence here.
Files inside a container are touched only through the engine's API, never by a path on the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

os.environ.setdefault("PYLXD_WARNINGS", "none")  # read by pylxd at import: unknown attributes are no news

import pylxd
import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from labshell import policy
from labshell.errors import LabshellError, NoContainer, TryAgain, UsageError
from labshell.policy import Container

log = logging.getLogger(__name__)
SOCKETS = ("/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket")
CALL_SECONDS = 15
COPY_SECONDS = 900
WAIT_STEP_SECONDS = 5
SETTLE_SECONDS = 4  # how long the engine may be busy finishing a stop that has already happened

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
SAFE_NIC = {
    "security.mac_filtering": "true",
    "security.ipv4_filtering": "true",
    "security.ipv6_filtering": "true",
    "security.port_isolation": "true",
}


class Busy(TryAgain):
    """The engine is still at something else with this container."""


# What the engine says -> what the person reads. Matched by substring: the class and the HTTP status of a failed
# operation are always the same.
SENTENCES: tuple[tuple[str, type[LabshellError], str], ...] = (
    ("Instance not found", NoContainer, "There is no container {name}."),
    ("No such object", NoContainer, "There is no container {name}."),
    (
        "no space left on device",
        LabshellError,
        "The storage pool is full, so the container cannot {action}. The administrator has to make room.",
    ),
    (
        "write failed",
        LabshellError,
        "The storage pool is full, so the container cannot {action}. The administrator has to make room.",
    ),
    ("is busy running", Busy, "The container is busy with something else; try again in a moment."),
    (
        "Failed to detect requested GPU",
        LabshellError,
        "The container cannot {action}: a GPU it was given is not there. The administrator has to look at it.",
    ),
    (
        "NVIDIA container tools",
        LabshellError,
        "The container cannot {action}: the host's NVIDIA container tools are missing.",
    ),
    (
        "already defined on another NIC",
        LabshellError,
        "The container cannot {action}: another container has the same address. The administrator has to look at it.",
    ),
    (
        "Not enough uid/gid available",
        LabshellError,
        "The host has no ids left for another isolated container; enlarge root's range in /etc/subuid.",
    ),
    ("shutting down", TryAgain, "The container engine is being restarted; try again in a moment."),
    ("database is closed", TryAgain, "The container engine is being restarted; try again in a moment."),
    (
        "No root device could be found",
        LabshellError,
        "The container cannot {action}: no storage pool is known. Set pool in labshell.toml.",
    ),
    ("already exists", UsageError, "There is a container {name} already."),
)


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

    def __init__(self, engine_socket: str, network: str, pool: str) -> None:
        self._socket = engine_socket
        self._network = network
        self._pool = pool
        self._client_lock = threading.Lock()
        self._connected: Any = None

    # Reading -------------------------------------------------------------------------------------------

    def get(self, name: str) -> Container | None:
        """The container of that name, whoever owns it."""
        with _engine(name, "be read"):
            try:
                answer = self._instance(name).get()
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
        with _engine("", "be listed"):
            answer = self._api.instances.get(params={"recursion": 1})
            return [_container(item) for item in answer.json()["metadata"]]

    def usage(self, name: str) -> Usage:
        with _engine(name, "be read"):
            state = self._instance(name).state.get().json()["metadata"]
        disk = (state.get("disk") or {}).get("root", {}).get("usage")
        seconds = (state.get("cpu") or {}).get("usage", 0) / 1e9
        return Usage(
            memory=(state.get("memory") or {}).get("usage") or None,
            disk=disk or None,
            processes=state["processes"] if state.get("processes", -1) >= 0 else None,
            cpu_seconds=seconds or None,
        )

    def bridge(self) -> Bridge:
        with _engine("", "be read"):
            try:
                network = self._api.networks[self._network].get().json()["metadata"]
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
        with _engine("", "be read"):
            leases = self._api.networks[self._network].leases.get().json()["metadata"] or []
        pinned = {container.address for container in self.all() if container.address}
        return pinned | {lease["address"] for lease in leases if ":" not in lease["address"]}

    def proxy_ports(self) -> set[int]:
        """Host ports that LXD proxy devices take."""
        with _engine("", "be listed"):
            instances = self._api.instances.get(params={"recursion": 1}).json()["metadata"]
        ports = set()
        for instance in instances:
            for device in (instance.get("expanded_devices") or {}).values():
                port = device.get("listen", "").rpartition(":")[2] if device.get("type") == "proxy" else ""
                if port.isdigit():
                    ports.add(int(port))
        return ports

    def pool_is_full(self, name: str, reserve_bytes: int) -> bool:
        """Whether the pool of this container has less than `reserve_bytes` left."""
        with _engine(name, "be read"):
            devices = self._instance(name).get().json()["metadata"]["expanded_devices"]
            pool = devices.get("root", {}).get("pool", "")
            space = self._api["storage-pools"][pool].resources.get().json()["metadata"].get("space", {})
        return bool(space.get("total")) and space["total"] - space.get("used", 0) < reserve_bytes

    # Changing ------------------------------------------------------------------------------------------

    def check_template(self, name: str) -> Container:
        """The stopped container that clones are made from, or the reason why it cannot be used."""
        template = self.get(name)
        if template is None:
            raise UsageError("There is no template {name}; make one with: labshell-admin template build", name=name)
        if template.owner is not None:
            raise UsageError("{name} is somebody's container, not a template.", name=name)
        if template.state != "Stopped":
            raise UsageError("The template {name} is running; stop it first: lxc stop {name}", name=name)
        return template

    def clone(self, template: str, user: str, uid: int, address: str, limits: Mapping[str, str]) -> None:
        """Copy the template to a stopped container of `user`'s with a pinned address.

        `limits` has limits.cpu, limits.memory and limits.processes in the engine's notation, and `disk`.
        Everything safe is said here again, whatever the template has.
        """
        limits = dict(limits)
        disk = limits.pop("disk", "")
        with _engine(template, "be read"):
            source = self._instance(template).get().json()["metadata"]
        root = dict(source["expanded_devices"].get("root", {"type": "disk", "path": "/"}))
        if self._pool:
            root["pool"] = self._pool
        if disk:
            root["size"] = disk
        nic = {"type": "nic", "name": "eth0", "network": self._network, "ipv4.address": address, **SAFE_NIC}
        config = {
            **SAFE_CONFIG,
            **limits,
            OWNER: user,
            UID: str(uid),
            TEMPLATE: "",
            PREPARED: "",
            HOST_KEY: "",
            FORWARDS: "[]",
            "boot.autostart": "",
        }
        body = {
            "name": user,
            "source": {"type": "copy", "source": template, "instance_only": True},
            "profiles": source.get("profiles", []),
            "config": config,
            "devices": {"root": root, "eth0": nic},
        }
        with _engine(user, "be made"):
            self._wait(self._api.instances.post(json=body), COPY_SECONDS)
            # An empty value stays as an empty key after a copy; patching with it removes the key.
            self._patch(user, {"config": dict.fromkeys((TEMPLATE, PREPARED, HOST_KEY, "boot.autostart"), "")})

    def set_host_key(self, name: str, host_key: str) -> None:
        """Remember the container's public host key, for the card and for known_hosts."""
        with _engine(name, "be changed"):
            self._patch(name, {"config": {HOST_KEY: host_key}})

    def mark_prepared(self, name: str) -> None:
        """From here on it is somebody's: never deleted to begin again."""
        with _engine(name, "be changed"):
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
        self.stop(name, 30, force=True)

        def delete() -> None:
            with _engine(name, "be deleted"), contextlib.suppress(NotFound):
                self._wait(self._instance(name).delete(), COPY_SECONDS)

        _settled(delete)

    # Inside --------------------------------------------------------------------------------------------

    def put_file(self, name: str, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file of the container's root. One that is there is deleted first: the engine would keep its mode."""
        self.delete_file(name, path)
        headers = {"X-LXD-type": "file", "X-LXD-mode": f"0{mode:o}", "X-LXD-uid": "0", "X-LXD-gid": "0"}
        with _engine(name, "take a file"):
            self._instance(name).files.post(params={"path": path}, data=content, headers=headers)

    def delete_file(self, name: str, path: str) -> None:
        with _engine(name, "lose a file"), contextlib.suppress(NotFound):
            self._instance(name).files.delete(params={"path": path})

    def list_folder(self, name: str, path: str) -> list[str]:
        """The names in a folder inside the container; empty if there is no such folder."""
        with _engine(name, "be read"):
            try:
                answer = self._instance(name).files.get(params={"path": path}, is_api=False)
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
        with _engine(name, "run a command"):
            metadata = self._wait(self._instance(name).exec.post(json=body), timeout_seconds)
            output = [self._recorded(url) for url in (metadata.get("output") or {}).values()]
        return int(metadata.get("return", 1)), "".join(output)[: 1 << 16]

    # Images --------------------------------------------------------------------------------------------

    def import_template(self, name: str, metadata: Path, rootfs: Path) -> None:
        """A stopped container, marked as a template, from two tar files as the engine's image format has them."""
        with _engine(name, "be made"):
            body: Any = {
                "metadata": ("metadata.tar", metadata.open("rb"), "application/octet-stream"),
                "rootfs": ("rootfs.tar", rootfs.open("rb"), "application/octet-stream"),
            }
            client = self._new_client(COPY_SECONDS)
            image = client.api.images.post(files=body)
            fingerprint = self._wait(image, COPY_SECONDS)["fingerprint"]
            try:
                request = {
                    "name": name,
                    "source": {"type": "image", "fingerprint": fingerprint},
                    "config": {TEMPLATE: "true", "security.idmap.isolated": "false"},
                }
                self._wait(self._api.instances.post(json=request), COPY_SECONDS)
            finally:
                self._wait(self._api.images[fingerprint].delete(), COPY_SECONDS)

    def export(self, name: str, target: Path) -> None:
        """Write the engine's own backup of a container, without its snapshots, to the new file `target`."""
        with _engine(name, "be archived"):
            backups = self._instance(name).backups
            body = {"name": "labshell", "instance_only": True, "compression_algorithm": "gzip"}
            with contextlib.suppress(NotFound):
                self._wait(backups["labshell"].delete(), COPY_SECONDS)
            self._wait(backups.post(json=body), COPY_SECONDS)
            try:
                with backups["labshell"].export.get(stream=True, timeout=COPY_SECONDS) as answer:
                    _save(answer, target)
            finally:
                self._wait(backups["labshell"].delete(), COPY_SECONDS)

    # The engine ----------------------------------------------------------------------------------------

    @property
    def _api(self) -> Any:
        with self._client_lock:
            if self._connected is None:
                self._connected = self._new_client(CALL_SECONDS)
            return self._connected.api

    def _new_client(self, timeout_seconds: int) -> Any:
        path = self._socket or next((path for path in SOCKETS if Path(path).exists()), SOCKETS[0])
        return pylxd.Client(endpoint="http+unix://" + quote(path, safe=""), timeout=timeout_seconds)

    def _instance(self, name: str) -> Any:
        # The name becomes part of a URL, which pylxd does not quote.
        if not policy.NAME.fullmatch(name):
            raise UsageError("{name} is not the name of a container.", name=repr(name)[:80])
        return self._api.instances[name]

    def _patch(self, name: str, body: dict[str, Any]) -> None:
        answer = self._instance(name).patch(json=body)
        if answer.json().get("type") == "async":
            self._wait(answer, CALL_SECONDS)

    def _change_state(self, name: str, body: dict[str, Any], timeout_seconds: int) -> None:
        def change() -> None:
            with _engine(name, body["action"]):
                self._wait(self._instance(name).state.put(json=body), timeout_seconds)

        _settled(change)

    def _log_of_start(self, name: str) -> str:
        """The end of what liblxc wrote: the engine's own message on a failed start says nothing."""
        try:
            return str(self._instance(name).logs["lxc.log"].get(is_api=False).text)[-2000:]
        except (LXDAPIException, ClientConnectionFailed, requests.RequestException):
            return ""

    def _wait(self, answer: Any, timeout_seconds: int) -> dict[str, Any]:
        """Wait for a background operation, in steps short enough for the client's own time limit.

        The operation goes on in the engine after a TryAgain: whoever catches that reads the state again.
        """
        operation = answer.json()["operation"].rpartition("/")[2].partition("?")[0]
        deadline = time.monotonic() + timeout_seconds
        while True:
            step = max(1, min(WAIT_STEP_SECONDS, int(deadline - time.monotonic())))
            waiting = self._api.operations[operation].wait
            try:
                metadata = waiting.get(params={"timeout": step}).json()["metadata"]
            except LXDAPIException as error:
                if "context deadline exceeded" not in str(error):  # how Incus says "not yet"
                    raise
                metadata = {"status_code": 103}
            if metadata["status_code"] >= 400:
                raise _OperationFailed(metadata.get("err", ""))
            if metadata["status_code"] == 200:
                return metadata.get("metadata") or {}
            if time.monotonic() > deadline:
                raise TryAgain(
                    "The container engine has not finished after {seconds} seconds; look again later.",
                    seconds=timeout_seconds,
                )

    def _recorded(self, url: str) -> str:
        """What a command printed, from where the engine (LXD and Incus differ) says that it keeps it."""
        log = self._api
        for part in url.removeprefix("/1.0/").split("/"):
            log = log[part]
        content = log.get(is_api=False).content
        log.delete()
        return str(content[: 1 << 16], "utf-8", "replace")


def _settled(change: Callable[[], None]) -> None:
    """Do `change`, again for a while if the engine is still finishing a stop that has already happened."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            change()
        except Busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


class _OperationFailed(Exception):
    """A background operation ended badly; the text is the engine's."""


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
        config={**(item.get("expanded_config") or config), "disk": _root_size(item)},
    )


def _root_size(item: Mapping[str, Any]) -> str:
    size = (item.get("expanded_devices") or {}).get("root", {}).get("size", "")
    return str(size)


def _save(answer: requests.Response, target: Path) -> None:
    with target.open("xb") as file:
        for chunk in answer.iter_content(1 << 20):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _engine(name: str, action: str) -> Iterator[None]:
    """Turn whatever the engine or pylxd raise into one of our errors. `action`: "cannot …"."""
    try:
        yield
    except NotFound as error:
        raise NoContainer("There is no container {name}.", name=name) from error
    except (LXDAPIException, _OperationFailed) as error:
        raise _error_for(str(error), name, action) from error
    except (requests.Timeout, TimeoutError) as error:
        raise TryAgain("The container engine does not answer; try again in a moment.") from error
    except (ClientConnectionFailed, requests.RequestException) as error:
        raise TryAgain("The container engine is away; try again in a moment.") from error


def _error_for(message: str, name: str, action: str) -> LabshellError:
    for part, kind, sentence in SENTENCES:
        if part in message:
            return kind(sentence, name=name, action=action)
    return LabshellError(
        "The container engine could not do this: the container {name} cannot {action}. "
        "The administrator finds the reason in the journal.",
        name=name,
        action=action,
    )


def ssh_answers(address: str, port: int = policy.SSH, timeout_seconds: float = 1.0) -> bool:
    """Whether an SSH server shows its banner there."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def parse_forwards(text: str) -> Iterable[Mapping[str, Any]]:
    """The user's own forwards as `user.labshell.forwards` holds them."""
    return json.loads(text) if text else []
