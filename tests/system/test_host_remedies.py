"""The host is broken in a way that labs have met; doctor finds it, its remedy is typed as it is, and it is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import TREE, Host, wheels

pytestmark = pytest.mark.root

PORT = "$(cat /public/ports/adam)"
DISK = "labshell-admin start eva; labshell-admin set eva --disk 700MiB"
FILL = "lxc exec eva -- sh -c 'dd if=/dev/urandom of=/big bs=1M count=700 status=none; sync'"
SSH_OFF = "labshell-admin start eva; lxc exec eva -- systemctl {} ssh; labshell-admin stop eva --force"
LISTEN = "setsid setpriv --reuid nobody --regid nogroup --clear-groups python3 -m http.server {} >/run/out 2>&1 & echo $! >/run/pid; sleep 2"
FOURTH = "for user in aa bb cc; do useradd -M -N -g labshell -s /opt/labshell/bin/labshell -d /home/$user $user; done"
SERVICE = (
    "lxc copy template web; lxc config device override web eth0 ipv4.address=10.83.0.200; port=$(($(cat /public/ports/eva) + 5)); "
    'lxc config set web user.labshell.service=true user.labshell.forwards="[{\\"port\\": $port, \\"target\\": 80}]"'
)
NATIVE = "nft add table ip other; nft add chain ip other here '{{ type {} hook {} priority -7; policy {}; }}'"

FAULTS = {  # what it is: the id, what breaks the host, what is left to put back when the remedy has been typed
    "a container deleted by hand": ("container-missing", "lxc delete --force eva", ""),
    "a container whose mark is gone": ("container-foreign", "lxc config unset eva user.labshell.owner", ""),
    "an emptied key file": ("keys-none", ": > /etc/labshell/keys/eva", ""),
    "no key file": ("keys-none", "rm /etc/labshell/keys/eva", ""),
    "a key file that all may write": ("keys-closed", "chmod 666 /etc/labshell/keys/eva", ""),
    "a key file of the user's": ("keys-closed", "chown eva /etc/labshell/keys/eva", ""),
    "a key file that nobody may read": ("keys-closed", "chmod 600 /etc/labshell/keys/eva", ""),
    "a key file with two names": ("keys-closed", "ln /etc/labshell/keys/eva /etc/labshell/keys/.eva", "rm /etc/labshell/keys/.eva"),
    "a link for a key file": ("keys-closed", "mv /etc/labshell/keys/eva /etc/labshell/eva; ln -s ../eva /etc/labshell/keys/eva", "rm /etc/labshell/eva"),
    "a closed folder of keys": ("keys-closed", "chmod 700 /etc/labshell/keys", ""),
    "rubbish in a key file": ("keys-damaged", "echo rubbish >> /etc/labshell/keys/eva", ""),
    "lxcfs stopped": ("lxcfs-away", "kill $(cat /run/labshell/lxcfs.pid); sleep 1", ""),
    "lxcfs killed": ("lxcfs-away", "kill -9 $(cat /run/labshell/lxcfs.pid); sleep 1", ""),
    "units that are disabled": ("not-at-boot", "mkdir -p /run/systemd/system", "rmdir /run/systemd/system"),
    "a foreign rule": ("port-led-away", f"iptables-legacy -w -t nat -I PREROUTING -p tcp --dport {PORT} -j DNAT --to-destination 192.0.2.1:80", ""),
    "a foreign rule for a range": ("port-led-away", "iptables-legacy -w -t nat -I PREROUTING -p tcp -m multiport --dports 80,20000:29999 -j REDIRECT --to-ports 9", ""),
    "a foreign rule of the other variant": ("port-led-away", f"iptables-nft -w -t nat -I PREROUTING -p tcp --dport {PORT} -j DNAT --to-destination 192.0.2.1:80", ""),
    "a foreign rule of nftables": ("port-led-away", f"{NATIVE.format('nat', 'prerouting', 'accept')}; nft add rule ip other here tcp dport {PORT} redirect to :9", "nft delete table ip other"),
    "a full disk": ("disk-full", f"{DISK}; {FILL}; labshell-admin stop eva --force", "lxc exec eva -- rm /big; labshell-admin set eva --disk none"),
    "an override of sshd for the fourth user": ("sshd-open", f"{FOURTH}; printf 'Match User cc\\nX11Forwarding yes\\n' > /etc/ssh/sshd_config.d/00-aaa.conf", "rm /etc/ssh/sshd_config.d/50-00-aaa.conf; for user in aa bb cc; do userdel $user; done"),
    "SSH disabled in a stopped container": ("ssh-disabled", SSH_OFF.format("disable"), ""),
    "SSH stopped in a container that runs": ("ssh-away", "labshell-admin start eva; sleep 31; lxc exec eva -- systemctl stop ssh", ""),
    "SSH masked in a stopped container": ("ssh-disabled", SSH_OFF.format("mask"), ""),
    "the connection table nearly full": ("connections-used-up", "for name in count max; do echo 262144 > /run/$name; mount --bind /run/$name /proc/sys/net/netfilter/nf_conntrack_$name; done", "for name in count max; do umount /proc/sys/net/netfilter/nf_conntrack_$name; done"),
    "a program on a user's port": ("port-listener", LISTEN.format("$(($(cat /public/ports/adam) + 5))"), "kill $(cat /run/pid)"),
    "a program inside port_range": ("port-left-out", LISTEN.format("25555"), ""),
    "a service's port in a user's block": ("ports-overlap", SERVICE, "lxc delete web"),
    "INPUT that drops": ("input-drop", "iptables-legacy -w -P INPUT DROP", "iptables-legacy -w -P INPUT ACCEPT; iptables-legacy -w -F INPUT"),
    "INPUT of the other variant that ends with REJECT": ("input-drop", "iptables-nft -w -A INPUT -p tcp --dport 22 -j ACCEPT; iptables-nft -w -A INPUT -j REJECT", "iptables-nft -w -F INPUT"),
    "nftables that drop": ("input-drop", NATIVE.format("filter", "input", "drop") + "; nft add rule ip other here tcp dport 22 accept", "nft delete table ip other"),
    "the bridge down": ("network-down", "ip link set lxdbr0 down", ""),
    "no DNS and DHCP server": ("network-dns", "kill $(sed -n 's/^pid: //p' /var/lib/lxd/networks/lxdbr0/dnsmasq.pid); sleep 1", ""),
    "a template that runs": ("template-runs", "lxc start template", ""),
    "sshd stopped": ("sshd-away", "kill $(cat /run/sshd.pid); sleep 1", ""),
    "LXD stopped": ("engine-away", "kill $(cat /run/labshell/lxd.pid); sleep 3", ""),
    "the daemon stopped": ("daemon-away", "kill $(cat /run/labshell/labshelld.pid); sleep 2", ""),
    "terminals": ("terminals-few", "echo 65000 > /run/max; mount --bind /run/max /proc/sys/kernel/pty/max", "umount /proc/sys/kernel/pty/max"),
}  # fmt: skip


@pytest.fixture(scope="module")
def adam(host: Host) -> Iterator[str]:
    """A user of this file alone: some remedies give another port or a new container."""
    host.add_user("adam")
    yield "adam"
    host.remove_user("adam")


@pytest.fixture(scope="module")
def eva(host: Host) -> Iterator[str]:
    """The one whose things are broken."""
    host.add_user("eva")
    yield "eva"
    host.remove_user("eva")


def findings(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.admin("doctor", "--json", check=False).stdout)
    return found


def typed(host: Host, remedy: str) -> None:
    """A remedy as the administrator types it, with what it leaves to them."""
    if "scripts/setup-host" in remedy:
        remedy = remedy.replace("scripts/setup-host", f"{TREE}/scripts/setup-host --wheels {wheels()}")
    remedy = remedy.replace("FILE", str(host.client.make_key("eva").with_suffix(".pub")))
    host.run(["bash", "-c", remedy], timeout=300, check=False, env={"SYSTEMD_OFFLINE": "1"})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_its_remedy_works_when_typed(host: Host, adam: str, eva: str, fault: str) -> None:
    name, change, back = FAULTS[fault]
    host.run(["bash", "-c", change], timeout=120)
    try:
        found = [finding for finding in findings(host) if finding["id"] == name]
        assert found
        for finding in found:
            typed(host, finding["remedy"])
        left = findings(host)
    finally:
        host.run(["bash", "-c", back], check=False)
    assert name not in {finding["id"] for finding in left}


def test_an_engine_that_is_stopped_is_one_finding(host: Host, adam: str) -> None:
    host.run(["bash", "-c", "kill $(cat /run/labshell/lxd.pid); sleep 3"])
    try:
        found = findings(host)
    finally:
        typed(host, "scripts/setup-host")
    assert [finding["id"] for finding in found] == ["engine-away"]
    assert "LXD is not running" in found[0]["finding"]


def test_a_program_on_a_users_port_is_named_with_its_account_and_the_user(host: Host, adam: str) -> None:
    port = host.ssh_port(adam) + 5
    host.run(["bash", "-c", LISTEN.format(port)])
    try:
        [found] = [finding for finding in findings(host) if finding["id"] == "port-listener"]
    finally:
        host.run(["bash", "-c", "kill $(cat /run/pid)"])
    assert all(word in found["finding"] for word in ("python3", "nobody", str(port), adam))


def test_a_block_in_which_the_host_listens_is_refused_even_over_ones_own(host: Host, adam: str) -> None:
    before = host.ssh_port(adam)
    for wanted in (before, 25550):
        host.run(["bash", "-c", LISTEN.format(wanted + 5)])
        try:
            refused = host.admin("set", adam, "--port", str(wanted), check=False)
        finally:
            host.run(["bash", "-c", "kill $(cat /run/pid)"])
        assert refused.returncode == 2
        assert f"listens on port {wanted + 5}" in refused.stderr
        assert host.ssh_port(adam) == before


def test_a_port_that_a_service_claims_leads_nowhere_after_a_login_either(host: Host, eva: str) -> None:
    port = host.ssh_port(eva)
    host.run(["bash", "-c", SERVICE.replace("+ 5", "+ 0")])
    try:
        host.admin("reconcile")
        host.client.ssh(eva, "start", check=True)
        rules = host.run(["iptables-legacy-save", "-t", "nat"]).stdout
    finally:
        host.run(["lxc", "delete", "web"])
        host.admin("reconcile")
    assert f"--dport {port} " not in rules
    assert f"--dport {port} " in host.run(["iptables-legacy-save", "-t", "nat"]).stdout


def test_the_host_is_sound_when_every_remedy_has_been_typed(host: Host, adam: str, eva: str) -> None:
    host.admin("reconcile")
    assert findings(host) == []
