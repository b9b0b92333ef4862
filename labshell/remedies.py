"""The administrator's command for an error, by the error's id: for root's terminal, never for a user's. Pure."""

from __future__ import annotations

import shlex

from labshell.errors import LabshellError

COMMANDS = ("command",)  # values that are command lines themselves; every other one is quoted as one word
# Of the errors that a command line of the administrator's ends, or explains. Words in capitals are theirs to fill in.
REMEDIES = {
    "account-gone": "labshell-admin list",
    "account-not-allowed": "labshell-admin list",
    "adoption-incomplete": "labshell-admin import-host",
    "archive-missing": "ls -l {folder}",
    "archive-not-verified": "labshell-admin doctor",
    "archive-space-missing": "df -h {folder}",
    "arguments-invalid": "{command} --help",
    "bug-in-daemon": "journalctl -u labshelld --grep {reference}",
    "container-address-taken": "labshell-admin doctor",
    "container-already-adopted": "labshell-admin show {name}",
    "container-busy": "lxc operation list",
    "container-disk-held": "labshell-admin doctor",
    "container-key-missing": "labshell-admin adopt {name} --key FILE",
    "container-missing": "labshell-admin list",
    "container-name-foreign": "lxc rename {name} NEW",
    "container-not-owned": "labshell-admin show {name}",
    "container-of-former-user": "labshell-admin adopt {name} --key FILE",
    "daemon-already-running": "systemctl status labshelld",
    "daemon-connection-lost": "journalctl -u labshelld -e",
    "daemon-no-answer": "systemctl status labshelld",
    "daemon-not-running": "systemctl start labshelld",
    "daemon-outdated": "systemctl restart labshelld",
    "daemon-refused-request": "systemctl restart labshelld",
    "default-route-missing": "ip route",
    "engine-network-missing": "lxc network list",
    "engine-network-without-address": "lxc network show {network}",
    "engine-no-answer": "labshell-admin doctor",
    "engine-refused": "lxc info {name} --show-log",
    "engine-timeout": "lxc operation list",
    "engine-unreachable": "labshell-admin doctor",
    "file-not-regular": "ls -l {path}",
    "file-not-trusted": "ls -l {path}",
    "file-not-written": "df -h {path}",
    "firewall-change-lost": "iptables-legacy-save -t nat",
    "firewall-keeps-changing": "labshell-admin reconcile",
    "firewall-refused": "labshell-admin reconcile",
    "folder-not-trusted": "ls -ld {path}",
    "gpu-driver-no-answer": "nvidia-smi",
    "gpu-missing": "labshell-admin doctor",
    "gpu-start-failed": "nvidia-smi",
    "gpu-tools-missing": "labshell-admin doctor",
    "host-group-missing": "scripts/setup-host",
    "host-rules-refused": "labshell-admin reconcile",
    "interface-missing": "ip -4 address",
    "kernel-module-missing": "modprobe br_netfilter",
    "maintenance": "labshell-admin undrain",
    "mount-source-missing": "mkdir -p {path}",
    "next-port-file-damaged": "echo {first} > {path}",
    "note-damaged": "rm {path}",
    "port-free-none": "labshell-admin list",
    "port-range-exhausted": "labshell-admin list",
    "port-taken": "ss -ltnp sport = :{port}",
    "quarantine-file-damaged": "mv {path} {path}.damaged",
    "service-missing": "labshell-admin list-services",
    "snapshot-unfinished": "labshell-admin doctor",
    "sshd-config-refused": "sshd -t",
    "storage-pool-full": "labshell-admin doctor",
    "storage-pool-unknown": "lxc storage list",
    "subuid-range-exhausted": "scripts/setup-host",
    "template-missing": "labshell-admin template build",
    "template-not-offered": "labshell-admin template list",
    "template-running": "lxc stop {name}",
    "trial-isolation-broken": "labshell-admin reconcile",
    "trial-name-foreign": "lxc rename {name} NEW",
    "user-incomplete": "labshell-admin list",
    "user-missing": "labshell-admin list",
    "user-or-service-missing": "labshell-admin list",
    "user-port-file-damaged": "iptables-legacy-save -t nat",
}


def of(error: LabshellError) -> str:
    """The command line; empty if there is none."""
    cause = error.__cause__
    if isinstance(cause, LabshellError) and cause.id == error.id:
        return of(cause)
    # One that is empty is not known: there is no command without it.
    values = {name: text if name in COMMANDS else shlex.quote(text) for name, text in error.values.items() if text}
    try:
        return error.remedy or REMEDIES.get(error.id, "").format_map(values)
    except KeyError:  # a daemon of another version has sent other values
        return ""
