"""The kernel's network settings that the guard's rules and the forwards need."""

from __future__ import annotations

import logging
from pathlib import Path

from labshell.errors import LabshellError
from labshell.forwarding import tracking
from labshell.host import machine

log = logging.getLogger(__name__)
BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class KernelSettings:
    """The settings for one bridge of the engine's."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._has_warned = False

    def ensure(self) -> None:
        """Make them what they should be, once the guard's rules are loaded that make them safe."""
        lower(tracking.CLOSED_SETTING, tracking.CLOSED_SECONDS)
        self._set_route_localnet("1")  # `ssh -p PORT localhost` reaches a container: safe behind the loopback chain
        self._route_between_containers()

    def remove(self) -> None:
        """Give the kernel's own values back."""
        if machine.kernel_setting(tracking.CLOSED_SETTING) == str(tracking.CLOSED_SECONDS):
            _set(machine.PROC / "sys" / tracking.CLOSED_SETTING, str(tracking.KERNELS_CLOSED_SECONDS))
        self._set_route_localnet("0")

    def _route_between_containers(self) -> None:
        """Let a container reach forwarded ports on the gateway, another's or its own.

        With br_netfilter on, the kernel turns such a packet round inside the bridge, where port isolation drops
        it. The switch is for all bridges of the host, so it is left alone where there are others, which may
        need it (Docker, Kubernetes).
        """
        others = [path for path in Path("/sys/class/net").glob("*/bridge") if path.parent.name != self._bridge]
        if BRIDGE_NETFILTER.exists() and BRIDGE_NETFILTER.read_text().strip() != "0":
            if not others:
                _set(BRIDGE_NETFILTER, "0")
            elif not self._has_warned:
                self._has_warned = True
                log.warning(
                    "containers cannot reach forwarded ports of this host: net.bridge.bridge-nf-call-iptables is 1"
                )

    def _set_route_localnet(self, value: str) -> None:
        _set(Path(f"/proc/sys/net/ipv4/conf/{self._bridge}/route_localnet"), value)


def lower(setting: str, value: int) -> None:
    """Lower a kernel setting of the network to `value`; an administrator's smaller one stays."""
    now = machine.kernel_setting(setting)
    if now.isdigit() and int(now) > value:
        _set(machine.PROC / "sys" / setting, str(value))


def _set(setting: Path, value: str) -> None:
    """Make a kernel setting what it should be; a missing one is ignored."""
    try:
        if setting.read_text().strip() != value:
            setting.write_text(value)
    except OSError as error:
        if setting.exists():
            raise LabshellError(
                "kernel-setting-not-changed", "{path} cannot be changed: {why}.", path=setting, why=error.strerror
            ) from error
