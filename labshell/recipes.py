"""What a template is made of. Pure, and quick to import: labshell-admin's options come from here."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGES = (
    "systemd systemd-sysv dbus udev libpam-systemd openssh-server openssh-sftp-server iproute2 iputils-ping ifupdown "
    "isc-dhcp-client netbase sudo ca-certificates locales-all less nano rsync procps bash-completion"
)
# ifupdown and not systemd-networkd, which waits for udev events that containers do not get.
INTERFACES = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n"

# A DHCP server knows a container by its hardware address, which a rebuild keeps, and not by an id made at first boot.
DHCP_CLIENT = "send dhcp-client-identifier = hardware;\n"

# What --with adds; the person behind it says what they need, and not how it is called.
EXTRAS = {"desktop": "xfce4 xfce4-terminal xrdp xorgxrdp dbus-x11", "docker": "docker.io"}
UPDATE = "apt-get -q update && apt-get -qy upgrade && apt-get clean"


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of: a Debian release, empty for this machine's own, and names of EXTRAS."""

    release: str = ""
    extras: tuple[str, ...] = ()


USUAL = Recipe()
