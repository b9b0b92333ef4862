"""Text for the files in ~/.ssh on a researcher's laptop. Pure.

With the lines of ssh_config, `ssh USER.HOST` starts the container and logs in to it through the host's port 22, and
so do VS Code, scp, sftp, rsync and port forwards; HOST is still the gateway. With those of known_hosts the first
connection asks nothing.
"""

from __future__ import annotations

from labshell.language import _
from labshell.shown import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from labshell.wire.gateway import ContainerReport

# Every byte is encrypted twice on this way, and processors do AES themselves: measured, a fifth more bytes a second
# than with ssh's own first choice. The others are for servers that have been told not to speak it.
CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr"


# The connection of ProxyCommand is for one program: it must neither use nor become a connection that others share
# (ControlMaster), and it asks for nothing that the gateway refuses.
PROXY = "ssh -T -a -x -o ControlMaster=no -o ControlPath=none -o ClearAllForwardings=yes"


def ssh_config(status: ContainerReport) -> str:
    """A block for the container under a name of its own, and one for what it shares with the gateway.

    The container has no HostName: a ControlPath with %h in it would be that of the gateway. The empty line is for a
    file whose last line has no end.
    """
    user, host, port = plain(status["user"]), plain(status["host"]), status["host_port"]
    name = _alias(user, host)
    about = _("{user}'s container on {host}, started when it is needed: ssh {name}")
    return (
        f"\n# {about.format(user=user, host=host, name=name)}\n"
        f"Host {name}\n"
        f"    HostKeyAlias {name}\n"
        f"    ProxyCommand {PROXY} {user}@{host} proxy\n"
        f"# {_('The gateway itself: ssh {host} help').format(host=host)}\n"
        f"Host {host} {name}\n"
        f"    User {user}\n"
        f"    Port {port}\n"
        f"    Ciphers {CIPHERS}\n"
        f"    # {_('if your key has another name than usual (-i), take the # away and name it here:')}\n"
        f"    # IdentityFile ~/.ssh/id_ed25519\n"
    )


def known_hosts(status: ContainerReport, gateway_keys: Sequence[str]) -> str:
    """The container's key, by its port and by the name in ssh_config, and the gateway's keys."""
    user, host = plain(status["user"]), plain(status["host"])
    lines = [f"{_address(host, status['host_port'])} {plain(key)}" for key in gateway_keys]
    if status.get("host_key"):
        names = [_alias(user, host)]
        if not status["has_ports"]:
            names += [plain(status["address"])] if status.get("address") else []
        elif port := status.get("port"):
            names.append(_address(host, port))
        lines.append(f"{','.join(names)} {plain(status['host_key'])}")
    return "".join(f"{line}\n" for line in lines)


def _alias(user: str, host: str) -> str:
    return f"{user}.{host}"


def _address(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"
