"""What a template is made of. Pure, and quick to import: labshell-admin's options come from here."""

from __future__ import annotations

from dataclasses import dataclass

MINIMAL = (
    "systemd systemd-sysv dbus udev libpam-systemd openssh-server openssh-sftp-server iproute2 iputils-ping ifupdown "
    "isc-dhcp-client netbase sudo ca-certificates less rsync procps"
)
# What a person looks for on the first day, and what editors on a laptop install themselves with.
TOOLS = (
    "bash-completion bzip2 curl file git locales nano ncurses-term python3 python3-venv unzip vim wget xauth "
    "xz-utils zip"
)
# Generated one by one: locales-all takes 230 MB. The owner of a container adds others: sudo dpkg-reconfigure locales.
LANGUAGES = "en_US en_GB zh_CN zh_TW zh_HK de_DE es_ES fr_FR it_IT ja_JP ko_KR pt_BR ru_RU"
# Not in /etc/default/locale, which sshd's PAM would put over the LANG that a client sends.
LOCALE = "export LANG=${LANG:-C.UTF-8}\n"
# apt keeps its package lists compressed, 20 MB instead of 50, and its own timer brings them up to date.
APT = 'Acquire::GzipIndexes "true";\nAPT::Periodic::Update-Package-Lists "1";\n'
# ifupdown and not systemd-networkd, which waits for udev events that containers do not get.
INTERFACES = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n"

# A DHCP server knows a container by its hardware address, which a rebuild keeps, and not by an id made at first boot.
DHCP_CLIENT = "send dhcp-client-identifier = hardware;\n"

# What --with adds; the person behind it says what they need, and not how it is called.
EXTRAS = {"desktop": "xfce4 xfce4-terminal xrdp xorgxrdp dbus-x11", "docker": "docker.io"}
UPDATE = "apt-get -q update && apt-get -qy upgrade && apt-get clean"


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of.

    A Debian release, empty for this machine's own; names of EXTRAS; `minimal` leaves out TOOLS, LANGUAGES and the
    package lists.
    """

    release: str = ""
    extras: tuple[str, ...] = ()
    minimal: bool = False

    @property
    def packages(self) -> list[str]:
        """The packages by name, without what they depend on."""
        parts = [MINIMAL, "" if self.minimal else TOOLS, *(EXTRAS[extra] for extra in self.extras)]
        return " ".join(parts).split()


USUAL = Recipe()
