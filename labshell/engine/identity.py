"""What makes a clone a machine of its own: name, machine id, SSH host keys, its user; and no trace of the template.

Host keys are made here and handed in before the first start, so that sshd never runs without them, whatever
the template does at its first boot, and so that the fingerprint on the card is known from a trusted source.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from labshell.engine.containers import Containers
from labshell.engine.errors import CHANGE, FULL_POOL
from labshell.engine.inside import OF_ROOT
from labshell.errors import LabshellError
from labshell.host import files
from labshell.model.keys import PublicKey, authorized_keys, line_inside, lines_inside

log = logging.getLogger(__name__)
NO_SPACE = "No space left on device"  # in the words of a program inside
HostKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

SSHD_DROP_IN = """\
# Written by labshell: only keys open this container.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""

SSHD_DROP_IN_OPENER = """\
# Written by labshell: keys open this container, and passwords of people, never root's.
PasswordAuthentication yes
KbdInteractiveAuthentication yes
PermitRootLogin prohibit-password
"""

# For each of these four settings systemd 252 mounts /proc anew, which AppArmor forbids in a container without
# nesting. Then logind does not start, and each login waits 25 seconds for it. A unit's own drop-in with a later name
# overrides these.
UNITS_FOLDER = "/etc/systemd/system/service.d"
UNITS_FILE = f"{UNITS_FOLDER}/10-labshell.conf"
UNITS_DROP_IN = """\
# Written by labshell: under AppArmor these settings keep systemd-logind and other units of a container from starting.
[Service]
ProtectProc=default
ProcSubset=all
ProtectControlGroups=no
ProtectKernelTunables=no
"""

PASSWORD_FILE = "/root/.labshell-password"  # noqa: S105 - where it lies for a moment
FIRST_LOGIN_SCRIPT = r"""
set -eu
chpasswd < "$2"
rm -f "$2"
chage --lastday 0 "$1"
systemctl reload ssh
"""

# Run inside as root, with the user's name and their authorized_keys as arguments. Harmless twice. It is text of
# ours alone: nothing of the user's becomes part of it.
SETUP_SCRIPT = r"""
set -eu
user=$1 keys=$2
awk -F: '$2 !~ /^[!*]/ { print $1 }' /etc/shadow | while read -r name; do usermod --password '!' "$name"; done
for home in /root /home/*; do
    if [ "$home" != "/home/$user" ]; then
        rm -f "$home"/.*_history "$home/.ssh/authorized_keys" "$home/.ssh/known_hosts" "$home"/.ssh/id_*
    fi
done
rm -f /var/lib/dhcp/*.leases /var/lib/systemd/random-seed
if [ -e /var/lib/dbus/machine-id ]; then ln -sf /etc/machine-id /var/lib/dbus/machine-id; fi
id -u "$user" >/dev/null 2>&1 || useradd --create-home --user-group --shell /bin/bash "$user"
if getent group sudo >/dev/null; then usermod --append --groups sudo "$user"; fi
mkdir -p /etc/sudoers.d
printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$user" > /etc/sudoers.d/90-labshell
chmod 0440 /etc/sudoers.d/90-labshell
home=$(getent passwd "$user" | cut -d: -f6)
install -d -m 0700 -o "$user" -g "$user" "$home/.ssh"
printf '%s' "$keys" > "$home/.ssh/authorized_keys"
chown "$user:$user" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
"""


# Run inside as root: one key more or less in the user's own file, whatever else they keep in it; or only these.
KEY_SCRIPT = r"""
set -eu
user=$1 action=$2 blob=$3 line=$4
home=$(getent passwd "$user" | cut -d: -f6)
file=$home/.ssh/authorized_keys
install -d -m 0700 -o "$user" -g "$user" "$home/.ssh"
[ -f "$file" ] || rm -f "$file"
touch "$file"
new=$(mktemp "$home/.ssh/.new.XXXXXX")
trap 'rm -f "$new"' EXIT
if [ "$action" != only ]; then grep -vF -- "$blob" "$file" > "$new" || [ $? = 1 ]; fi  # 1: no line is left
if [ "$action" != remove ]; then printf '%s\n' "$line" >> "$new"; fi
chown "$user:$user" "$new"
chmod 0600 "$new"
mv -f "$new" "$file"
"""


HOST_KEY_KINDS: dict[str, Callable[[], HostKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
}


def host_key_files(existing: Mapping[str, HostKey]) -> tuple[dict[str, str], str]:
    """SSH host keys, new ones but for those in `existing` (by kind).

    File name -> content for /etc/ssh, and the public Ed25519 key ("ssh-ed25519 AAAA...").
    """
    made = {}
    for kind, generate in HOST_KEY_KINDS.items():
        private = existing.get(kind) or generate()
        name = f"ssh_host_{kind}_key"
        made[name] = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        made[f"{name}.pub"] = (
            private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + "\n"
        )
    return made, made["ssh_host_ed25519_key.pub"].strip()


def save_host_keys(path: Path, host_keys: Mapping[str, str]) -> None:
    """Keep what host_key_files() made, for a rebuild: what is in a container its owner may have broken."""
    files.ensure_folder(path.parent, 0o700)
    files.write(path, json.dumps(dict(host_keys)).encode(), 0o600)


def kept_host_keys(path: Path) -> dict[str, str]:
    """What save_host_keys() kept; nothing if there is nothing, or if the file is damaged."""
    try:
        return dict(json.loads(files.read(path) or b"{}"))
    except (LabshellError, ValueError, TypeError):
        return {}


def saved_host_keys(path: Path) -> dict[str, HostKey]:
    """The host keys that were kept, by kind; none if there are none, or if the file is damaged."""
    found: dict[str, HostKey] = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        saved = kept_host_keys(path)
        for kind in HOST_KEY_KINDS:
            key = load_ssh_private_key(saved.get(f"ssh_host_{kind}_key", "").encode(), None)
            if isinstance(key, ed25519.Ed25519PrivateKey if kind == "ed25519" else ec.EllipticCurvePrivateKey):
                found[kind] = key
    return found


def write_identity(containers: Containers, name: str, *, hostname: str, keys_file: Path) -> str:
    """Give a stopped clone its identity; the public host key it has now.

    Host keys that are in `keys_file` on the host are kept, and new ones are saved there.
    """
    host_keys, public = host_key_files(saved_host_keys(keys_file))
    save_host_keys(keys_file, host_keys)
    for entry in containers.inside.list_folder(name, "/etc/ssh"):
        if entry.startswith("ssh_host_"):
            containers.inside.delete_file(name, f"/etc/ssh/{entry}")
    for file, content in host_keys.items():
        mode = 0o644 if file.endswith(".pub") else 0o600
        containers.inside.put_file(name, f"/etc/ssh/{file}", content.encode(), mode)
    containers.inside.put_file(name, "/etc/ssh/sshd_config.d/00-labshell.conf", SSHD_DROP_IN.encode())
    write_units(containers, name)
    containers.inside.put_file(name, "/etc/hostname", f"{hostname}\n".encode())
    containers.inside.put_file(name, "/etc/hosts", hosts(hostname).encode())
    containers.inside.put_file(name, "/etc/machine-id", f"{secrets.token_hex(16)}\n".encode(), 0o444)
    return public


def write_units(containers: Containers, name: str) -> None:
    """Let systemd's units start under AppArmor in the stopped container `name`; nothing if it has no systemd."""
    inside, parent = containers.inside, UNITS_FOLDER.rpartition("/")[0]
    if inside.entry(name, UNITS_FILE) is not None or inside.entry(name, parent) is None:
        return
    if inside.entry(name, UNITS_FOLDER) is None:
        inside.put_folder(name, UNITS_FOLDER, 0o755, OF_ROOT)
    inside.put_file(name, UNITS_FILE, UNITS_DROP_IN.encode())


def hosts(name: str) -> str:
    return (
        f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )


def write_user(containers: Containers, name: str, user: str, public_keys: list[PublicKey]) -> None:
    """Make `user` inside the running container `name`, with their keys and no password anywhere."""
    gateway_address = _gateway_address(containers)
    text = authorized_keys(lines_inside(public_keys, gateway_address))
    _run(containers, name, SETUP_SCRIPT, [user, text])


def set_password(containers: Containers, name: str, user: str, password: str) -> None:
    """Let `user` in by password inside the running container too, with one that they must change at once."""
    containers.inside.put_file(name, PASSWORD_FILE, f"{user}:{password}\n".encode(), 0o600)
    containers.inside.put_file(name, "/etc/ssh/sshd_config.d/00-labshell.conf", SSHD_DROP_IN_OPENER.encode())
    _run(containers, name, FIRST_LOGIN_SCRIPT, [user, PASSWORD_FILE])


def change_key(containers: Containers, name: str, action: str, key: PublicKey) -> None:
    """Add or remove one key of the user inside the running container; `action` is "add" or "remove"."""
    _run(containers, name, KEY_SCRIPT, [name, action, key.blob, line_inside(key, _gateway_address(containers))])


def set_keys(containers: Containers, name: str, public_keys: Sequence[PublicKey]) -> None:
    """Make these the user's keys inside the running container, and no others."""
    lines = "\n".join(lines_inside(public_keys, _gateway_address(containers)))
    _run(containers, name, KEY_SCRIPT, [name, "only", "", lines])


def renew_keys(containers: Containers, name: str, user: str, public_keys: Sequence[PublicKey]) -> None:
    """Make these the user's keys, and no others, in a container whose files are of an earlier day.

    They are written while it is stopped: its SSH server must not see the keys of that day, one of which may have been
    removed since.
    """
    container = containers.get(name)
    if container is not None and container.state != "Stopped":
        set_keys(containers, name, public_keys)
        return
    inside, home = containers.inside, f"/home/{user}"
    folder, file = f"{home}/.ssh", f"{home}/.ssh/authorized_keys"
    owner = inside.entry(name, folder)
    if owner is None or owner.kind == "file":
        owner = inside.entry(name, home)
        if owner is None:
            return  # no home, and so no keys
        inside.put_folder(name, folder, 0o700, owner)
    found = inside.entry(name, file)
    if found is not None and found.kind == "directory":
        log.warning("a folder in the place of the keys", extra={"container": name, "path": file})
        return  # an SSH server takes no key from it
    lines = lines_inside(public_keys, _gateway_address(containers))
    inside.put_file(name, file, authorized_keys(lines).encode(), 0o600, owner)


def _gateway_address(containers: Containers) -> str:
    return containers.network.bridge().gateway


def _run(containers: Containers, name: str, script: str, arguments: list[str]) -> None:
    status, output = containers.inside.run(name, ["/bin/sh", "-c", script, "labshell", *arguments])
    if status == 0:
        return
    container = containers.get(name) if NO_SPACE in output else None
    if container is not None and containers.pools.is_full(container.pool):
        raise LabshellError(*FULL_POOL, action=CHANGE)
    raise LabshellError(
        "container-refused-change",
        "Something inside the container refused the change: {reason}.",
        reason=" ".join(output.split())[-300:].rstrip(".") or f"status {status}",
    )
