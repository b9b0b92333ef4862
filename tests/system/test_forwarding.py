"""The rules, with real packets: from a client's machine, from containers, from the gateway itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from testhost import Client, Host, wait_until

pytestmark = pytest.mark.root

# Connects and prints the first line the other side says, or the error.
READ_BANNER = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
        connection.settimeout(5)
        print(connection.recv(64).decode().strip())
except OSError as error:
    print(type(error).__name__)
"""
# Greets everybody who connects, and prints who they are.
GREETER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(b"greeter\\n")
    connection.close()
    print(peer[0], flush=True)
"""
# Runs in a container, which has no Python: bash can connect too.
BASH_BANNER = 'exec 3<>/dev/tcp/$0/$1 && read -r -t 3 line <&3; echo "$line"'


def banner_from(place: Host | Client, address: str, port: int) -> str:
    return place.run(["/usr/bin/python3", "-c", READ_BANNER, address, str(port)]).stdout.strip()


def banner_from_container(host: Host, name: str, address: str, port: int) -> str:
    done = host.run(
        ["lxc", "exec", name, "--", "timeout", "4", "bash", "-c", BASH_BANNER, address, str(port)], check=False
    )
    return done.stdout.strip()


@pytest.fixture
def greeter(host: Host, alice_port: int) -> Iterator[subprocess.Popen[str]]:
    """A server elsewhere, on the very port number that is alice's here."""
    with host.other.popen(
        ["/usr/bin/python3", "-c", GREETER, host.other.address, str(alice_port)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process
        process.kill()


def foreign_rules(host: Host) -> str:
    """Every rule that is not labshell's and not the engine's, in both variants of iptables and in nftables."""
    legacy = host.run(["iptables-legacy-save"]).stdout
    lines = [line for line in legacy.splitlines() if "LABSHELL" not in line and not line.startswith("#")]
    nft = json.loads(host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    items = [next(iter(item.values())) | {"handle": 0} for item in nft]
    others = [item for item in items if item.get("table", item.get("name")) not in ("labshell", "lxd")]
    return "\n".join([re.sub(r"\[\d+:\d+\]", "", line) for line in lines] + [json.dumps(item) for item in others])


def test_a_connection_to_the_users_port_arrives_in_their_container(host: Host, alice_port: int) -> None:
    assert host.client.ssh("alice", "hostname", port=alice_port, check=True).stdout == "alice\n"


def test_the_container_sees_the_clients_own_address(host: Host, alice_port: int) -> None:
    seen = host.client.ssh("alice", "echo $SSH_CONNECTION", port=alice_port, check=True).stdout
    assert seen.split()[0] == host.client.address


@pytest.mark.usefixtures("greeter")
def test_an_outgoing_connection_to_the_same_port_elsewhere_is_not_captured(
    host: Host, alice_port: int, bob_port: int
) -> None:
    assert bob_port != alice_port
    assert banner_from_container(host, "bob", host.other.address, alice_port) == "greeter"


def test_another_container_reaches_the_users_port_on_every_address_of_the_gateway(
    host: Host, alice_port: int, bob_port: int
) -> None:
    assert bob_port
    for address in (host.client.gateway, host.other.gateway):
        assert banner_from_container(host, "bob", address, alice_port).startswith("SSH-2.0-")


def test_a_container_reaches_its_own_port_on_the_gateway(host: Host, alice_port: int) -> None:
    assert banner_from_container(host, "alice", host.client.gateway, alice_port).startswith("SSH-2.0-")


@pytest.mark.parametrize("address", ["198.18.0.1", "198.18.1.1", "127.0.0.1"])
def test_the_gateway_itself_reaches_the_users_port_on_its_own_addresses(
    host: Host, alice_port: int, address: str
) -> None:
    assert banner_from(host, address, alice_port).startswith("SSH-2.0-")


def test_a_flushed_firewall_is_whole_again_after_the_users_next_login(host: Host, alice_port: int) -> None:
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    host.run(["iptables-legacy", "-F"])
    assert banner_from(host.client, host.client.gateway, alice_port) == "ConnectionRefusedError"
    host.client.ssh("alice", "start", check=True)
    assert banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-")


def test_a_flushed_firewall_becomes_whole_again_by_itself(host: Host, alice_port: int) -> None:
    host.run(["iptables-legacy", "-t", "nat", "-F"])
    host.run(["nft", "delete", "table", "inet", "labshell"])
    wait_until(lambda: banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-"), 45)
    assert "chain input" in host.run(["nft", "list", "table", "inet", "labshell"]).stdout


def test_reconcile_shows_its_plan_and_then_does_it(host: Host, alice_port: int) -> None:
    host.run(["iptables-legacy", "-t", "nat", "-F", "LABSHELL"])
    plan = host.admin("reconcile", "--plan").stdout
    assert f"would be added: port {alice_port}" in plan
    assert f"added: port {alice_port}" in host.admin("reconcile").stdout
    assert host.admin("reconcile").stdout == "Firewall rules are up to date.\n"


def test_a_rule_in_our_chain_that_nobody_wants_is_removed(host: Host, alice_port: int) -> None:
    stray = ["-p", "tcp", "--dport", "29999", "-j", "DNAT", "--to-destination", "10.83.0.250:22"]
    host.run(["iptables-legacy", "-t", "nat", "-A", "LABSHELL", *stray])
    double = ["-p", "tcp", "--dport", str(alice_port), "-m", "comment", "--comment", "labshell:alice"]
    host.run(
        ["iptables-legacy", "-t", "nat", "-A", "LABSHELL", *double, "-j", "DNAT", "--to-destination", "10.83.0.9:22"]
    )
    host.admin("reconcile")
    rules = host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
    assert "29999" not in rules
    assert rules.count(f"--dport {alice_port} ") == 1


def test_rules_of_others_are_untouched_to_the_byte_by_adding_and_removing_a_user(host: Host) -> None:
    for table, rule in (
        ("nat", ["PREROUTING", "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", "198.18.1.2:80"]),
        ("nat", ["POSTROUTING", "-s", "192.0.2.0/24", "-j", "MASQUERADE"]),
        ("filter", ["FORWARD", "-s", "192.0.2.0/24", "-m", "comment", "--comment", "labshell-like", "-j", "DROP"]),
        ("filter", ["INPUT", "-s", "192.0.2.7", "-j", "DROP"]),
    ):
        host.run(["iptables-legacy", "-t", table, "-A", *rule])
    host.run(["iptables", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP"])
    before = foreign_rules(host)
    host.add_user("carol")
    assert foreign_rules(host) == before
    host.remove_user("carol")
    assert foreign_rules(host) == before


def test_a_host_whose_forward_policy_is_drop_still_forwards(host: Host, alice_port: int) -> None:
    """As Docker and ufw leave it: a packet has to pass both variants of iptables."""
    host.run(["iptables", "-P", "FORWARD", "DROP"])
    try:
        host.admin("reconcile")
        assert banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-")
        assert host.run(["iptables", "-S", "FORWARD"]).stdout.count("LABSHELL-FORWARD") == 1
        host.admin("reconcile")
        assert host.run(["iptables", "-S", "FORWARD"]).stdout.count("LABSHELL-FORWARD") == 1
    finally:
        host.run(["iptables", "-P", "FORWARD", "ACCEPT"])


def test_changes_by_several_programs_at_once_lose_nothing(host: Host, alice_port: int) -> None:
    """Reading and committing are two runs of the tool, between which others write."""
    script = """
import sys
from labshell.forwarding.iptables import Forwarding
from labshell.model.forwards import Forward
number = int(sys.argv[1])
forwarding = Forwarding("lxdbr0", "10.83.0.1/24")
for turn in range(25):
    name = f"race{number}-{turn}"
    forwarding.apply_user(name, [Forward(25000 + number * 100 + turn, name, "10.83.0.200")])
"""
    host.stop_daemon()  # it would take away what nobody owns
    writers = [
        subprocess.Popen(host.argv(["/opt/labshell/venv/bin/python", "-Ic", script, str(number)]))
        for number in range(4)
    ]
    for turn in range(25):
        host.run(
            ["iptables-legacy", "-w", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", str(26000 + turn)]
        )
    assert [writer.wait(60) for writer in writers] == [0] * 4
    rules = host.run(["iptables-legacy", "-t", "nat", "-S"]).stdout
    assert len(re.findall(r"-A LABSHELL .*labshell:race", rules)) == 100
    assert len(re.findall(r"-A PREROUTING .*--dport 260\d\d", rules)) == 25
    for turn in range(25):
        host.run(
            ["iptables-legacy", "-w", "-t", "nat", "-D", "PREROUTING", "-p", "tcp", "--dport", str(26000 + turn)]
        )
    host.start_daemon()
    host.admin("reconcile")
    assert "race" not in host.run(["iptables-legacy", "-t", "nat", "-S"]).stdout
    assert banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-")


def test_a_port_leads_to_its_container_through_the_chain_of_its_range_when_forwards_are_many(
    host: Host, alice_port: int
) -> None:
    script = """
from labshell.forwarding.iptables import Forwarding
from labshell.model.forwards import Forward
forwarding = Forwarding("lxdbr0", "10.83.0.1/24")
many = [Forward(25000 + number, f"many{number}", "10.83.0.200") for number in range(600)]
forwarding.apply([*forwarding.live(), *many])
assert not forwarding.apply(forwarding.live())
"""
    host.stop_daemon()  # it would take away what nobody owns
    host.run(["/opt/labshell/venv/bin/python", "-Ic", script])
    top = host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
    assert "DNAT" not in top
    assert len(top.splitlines()) < 20
    assert banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-")
    host.start_daemon()
    host.client.ssh("alice", "start", check=True)
    host.admin("reconcile")
    rules = host.run(["iptables-legacy-save", "-t", "nat"]).stdout
    assert not re.search("many|LABSHELL-[0-9]", rules)
    assert rules.count(f"--dport {alice_port} ") == 1
    assert banner_from(host.client, host.client.gateway, alice_port).startswith("SSH-2.0-")


# The guard --------------------------------------------------------------------------------------------


def test_a_container_reaches_no_service_of_the_host(host: Host, alice_port: int) -> None:
    assert alice_port
    for address in ("10.83.0.1", host.client.gateway, host.other.gateway):
        assert banner_from_container(host, "alice", address, 22) == ""
    assert banner_from(host.client, host.client.gateway, 22).startswith("SSH-2.0-")


def test_a_container_reaches_another_only_through_its_forwarded_port(
    host: Host, alice_port: int, bob_port: int
) -> None:
    assert bob_port
    address = json.loads(host.admin("show", "alice", "--json").stdout)["address"]
    assert banner_from_container(host, "bob", address, 22) == ""
    assert banner_from_container(host, "bob", host.client.gateway, alice_port).startswith("SSH-2.0-")


def test_a_container_cannot_reach_the_hosts_loopback_through_the_bridge(host: Host, alice_port: int) -> None:
    """route_localnet is on for the bridge, so that `ssh -p PORT localhost` works on the host itself."""
    assert alice_port
    with subprocess.Popen(
        host.argv(["/usr/bin/python3", "-c", GREETER, "127.0.0.1", "7777"]), stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "listening\n"
        try:
            attack = (
                "ip route del local 127.0.0.0/8 dev lo table local; ip address del 127.0.0.1/8 dev lo; "
                "ip route add 127.0.0.0/8 via 10.83.0.1 src $(hostname -I | cut -d' ' -f1); "
                "timeout 4 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7777 && head -1 <&3'"
            )
            done = host.run(["lxc", "exec", "bob", "--", "bash", "-c", attack], check=False)
            assert "greeter" not in done.stdout
            assert banner_from(host, "127.0.0.1", 7777) == "greeter"
        finally:
            service.kill()
            host.run(["lxc", "restart", "-f", "bob"])


# Closed networks --------------------------------------------------------------------------------------


def is_reached(host: Host, port: int) -> bool:
    """Whether alice's container reaches the greeter, which is on the network of the campus's other server."""
    return banner_from_container(host, "alice", host.other.address, port) == "greeter"


@pytest.mark.usefixtures("greeter")
def test_a_network_that_is_closed_by_name_is_reached_by_no_container_and_reaches_their_ports(
    host: Host, alice_port: int
) -> None:
    assert is_reached(host, alice_port)
    with host.configured('guard_closed_networks = ["198.18.1.0/24"]'):
        host.admin("reconcile")
        assert not is_reached(host, alice_port)
        assert banner_from(host.other, host.other.gateway, alice_port).startswith("SSH-2.0-")
        assert banner_from(host, host.other.address, alice_port) == "greeter"
    host.admin("reconcile")
    assert is_reached(host, alice_port)


@pytest.mark.usefixtures("greeter")
def test_a_network_beside_the_way_out_is_closed_by_itself_unless_it_is_named_as_open(
    host: Host, alice_port: int
) -> None:
    """So is what somebody's own rule leads there: Docker publishes the ports of its containers like that."""
    published = ["PREROUTING", "-p", "tcp", "--dport", "8099", "-j", "DNAT", "--to-destination"]
    host.run(["iptables", "-t", "nat", "-A", *published, f"{host.other.address}:{alice_port}"])
    host.run(["ip", "route", "add", "default", "via", host.client.address])
    try:
        host.admin("reconcile")
        assert not is_reached(host, alice_port)
        assert banner_from_container(host, "alice", host.client.gateway, 8099) == ""
        assert banner_from(host.client, host.client.gateway, 8099) == "greeter"
        assert banner_from(host.other, host.other.gateway, alice_port).startswith("SSH-2.0-")
        with host.configured('guard_open_networks = ["198.18.1.0/24"]'):
            host.admin("reconcile")
            assert is_reached(host, alice_port)
            assert banner_from_container(host, "alice", host.client.gateway, 8099) == "greeter"
        host.run(["ip", "route", "del", "default"])
        host.restart_daemon()
        host.admin("reconcile")
        assert not is_reached(host, alice_port)  # at boot, before the network is up
    finally:
        host.run(["ip", "route", "del", "default"], check=False)
        host.run(["iptables", "-t", "nat", "-D", *published, f"{host.other.address}:{alice_port}"])
        host.run(["rm", "-f", "/var/lib/labshell/ways-out"])
        host.restart_daemon()
    host.admin("reconcile")
    assert is_reached(host, alice_port)
