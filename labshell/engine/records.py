"""What the engine keeps of an instance, and what it means: our marks in its config, addresses, limits, use."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labshell.engine import denied_calls
from labshell.model.addresses import OUR_CABLES
from labshell.model.container import Container, Hold, OwnForward
from labshell.model.settings import date_of, gpus_in, mounts_in
from labshell.model.snapshots import Snapshot

log = logging.getLogger(__name__)

OWNER = "user.labshell.owner"
UID = "user.labshell.uid"
TEMPLATE = "user.labshell.template"
CLONED_FROM = "user.labshell.cloned-from"
PROFILE = "user.labshell.profile"
PREPARED = "user.labshell.prepared"
HOST_KEY = "user.labshell.host-key"
FORWARDS = "user.labshell.forwards"
KEPT = "user.labshell.kept"
EXPIRES = "user.labshell.expires"
GPUS_ASIDE = "user.labshell.gpus-aside"
SERVICE = "user.labshell.service"
ADDRESS = "user.labshell.address"  # of one that was adopted while it ran, until it is pinned
ARCHIVED = "user.labshell.archived"
RESTORING = "user.labshell.restoring"
HOLD = "user.labshell.hold"
HARDWARE_ADDRESS = "user.labshell.hwaddr"  # what the lab's DHCP server knows it by
GIVEN_HARDWARE_ADDRESS = "volatile.eth0.hwaddr"  # what the engine's knows it by

SAFE_CONFIG = {
    "security.privileged": "false",
    "security.nesting": "false",
    "security.idmap.isolated": "true",
    "security.devlxd": "false",
}
IPV6_FILTER = "security.ipv6_filtering"  # of a network device; the engine refuses it without br_netfilter
FENCES = ("security.mac_filtering", "security.port_isolation")  # of a network device, on any bridge
# What a container takes over from the one in whose place it comes.
TAKEN_OVER = ("limits.", "nvidia.", "security.nesting", FORWARDS, KEPT, EXPIRES, GPUS_ASIDE, HARDWARE_ADDRESS, HOLD,
              PROFILE)  # fmt: skip
NEVER_INHERITED = (TEMPLATE, PROFILE, PREPARED, HOST_KEY, KEPT, EXPIRES, HOLD, GPUS_ASIDE, ARCHIVED, SERVICE,
                   "boot.autostart")  # fmt: skip
# What a clone never inherits from its template, if it is there.
LEFT_OUT = ("raw.", "security.", "user.", "boot.", "cloud-init.", "linux.kernel_modules")


def owned_by(user: str, uid: int | None) -> dict[str, str]:
    """The owner mark, as config; one without a uid has no owner yet."""
    return {OWNER: user, UID: str(uid or "")}


@dataclass(frozen=True)
class Usage:
    """The current use of a container, in bytes and numbers; None where the engine does not say."""

    memory: int | None
    disk: int | None
    processes: int | None
    cpu_seconds: float | None
    network_bytes: int | None = None  # in and out, since its start


def container_of(item: Mapping[str, Any]) -> Container:
    """What the engine's record of an instance says of a container; the address is the one that is pinned or kept."""
    config = item.get("config") or {}
    devices = item.get("expanded_devices") or {}
    nic = devices.get("eth0", {})
    uid = config.get(UID, "")
    return Container(
        name=item["name"],
        state=item["status"],
        owner=config.get(OWNER) or None,
        uid=int(uid) if uid.isdigit() else None,
        address=nic.get("ipv4.address") or config.get(ADDRESS) or None,
        pool=devices.get("root", {}).get("pool", ""),
        disk_limit=str(devices.get("root", {}).get("size", "")),
        is_pinned="ipv4.address" in nic,
        is_fenced=_is_fenced(nic),
        port_on_host=nic.get("host_name", ""),
        denies_calls=denied_calls.denies_all(config),
        needs_bridge_netfilter=nic.get(IPV6_FILTER) == "true",
        is_template=config.get(TEMPLATE) == "true",
        is_service=config.get(SERVICE) == "true" and not config.get(OWNER),
        is_prepared=config.get(PREPARED) == "true",
        gpus=gpus_in(devices.values()),
        mounts=mounts_in(devices),
        template=config.get(CLONED_FROM, ""),
        profile=config.get(PROFILE, ""),
        writable_mounts=tuple(
            device["source"]
            for device in devices.values()
            if device.get("type") == "disk"
            and device.get("source", "").startswith("/")
            and not device.get("readonly")
        ),
        gpus_aside=bool(config.get(GPUS_ASIDE)),
        expires=date_of(config.get(EXPIRES, "")),
        hold=_hold(config.get(HOLD, "")),
        host_key=config.get(HOST_KEY, ""),
        kept=config.get(KEPT, ""),
        started=item.get("last_used_at", ""),
        forwards=_forwards(config.get(FORWARDS, "")),
        config=item.get("expanded_config") or config,
    )


def _is_fenced(nic: Mapping[str, str]) -> bool:
    """The guard knows a port by its name on the host; containers made earlier have the engine's filter instead."""
    is_guarded = nic.get("host_name", "").startswith(OUR_CABLES) or nic.get(IPV6_FILTER) == "true"
    return is_guarded and all(nic.get(key) == "true" for key in FENCES)


def usage_of(state: Mapping[str, Any]) -> Usage:
    """What the engine says of an instance's state, in our words."""
    disk = (state.get("disk") or {}).get("root", {}).get("usage")
    interfaces = state.get("network") or {}
    seconds = (_known((state.get("cpu") or {}).get("usage")) or 0) / 1e9
    return Usage(
        memory=_known((state.get("memory") or {}).get("usage")),
        disk=_known(disk),
        processes=state["processes"] if state.get("processes", -1) >= 0 else None,
        cpu_seconds=seconds or None,
        network_bytes=sum(_traffic(interface) for name, interface in interfaces.items() if name != "lo"),
    )


def _known(figure: int | None) -> int | None:
    """A figure of the engine's, which says 0 or -1 where it has none."""
    return figure if figure and figure > 0 else None


def _traffic(interface: Mapping[str, Any]) -> int:
    counters = interface.get("counters") or {}
    return int(counters.get("bytes_received", 0)) + int(counters.get("bytes_sent", 0))


def snapshot_of(item: Mapping[str, Any]) -> Snapshot:
    return Snapshot(item["name"], item["created_at"], _positive(item.get("size")))


def hardware_address(item: Mapping[str, Any]) -> str:
    """Of an instance's eth0, from the engine's record and not from inside."""
    nic = (item.get("expanded_devices") or {}).get("eth0", {})
    return str(nic.get("hwaddr") or (item.get("config") or {}).get(GIVEN_HARDWARE_ADDRESS, ""))


def current_address(state: Mapping[str, Any]) -> str | None:
    """The IPv4 address that a running container has now, in what the engine says of its state."""
    for item in (state.get("network") or {}).get("eth0", {}).get("addresses") or []:
        if item.get("family") == "inet" and item.get("scope") == "global":
            return str(item["address"])
    return None


def _forwards(text: str) -> tuple[OwnForward, ...]:
    """The user's own forwards; what is not in our form is none, and said so in the journal."""
    try:
        return tuple(OwnForward(**item) for item in json.loads(text or "[]"))
    except (ValueError, TypeError):
        log.warning("unreadable forwards", extra={"text": text[:200]})
        return ()


def _hold(text: str) -> Hold | None:
    try:
        return Hold(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        log.warning("unreadable hold", extra={"text": text[:200]})
        return None


def _positive(number: int | None) -> int | None:
    """The engine says -1 or 0 where it does not know."""
    return number if number and number > 0 else None
