"""The three ways to a container: ports by iptables, ports by proxy devices, an address on the lab's own network.

The same person does the same things on each, with real packets; only what differs is asked apart.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from test_forwarding import banner_from, banner_from_container
from testhost import Client, Completed, Host, join_client, wait_until

pytestmark = pytest.mark.root
NAME = "wendy"


@dataclass
class Way:
    """A host that works in one way, and a machine from which people come."""

    kind: str
    host: Host
    client: Client

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.client.ssh(NAME, "status --json", check=True).stdout))

    @property
    def door(self) -> tuple[str, int]:
        """Address and port at which the container's SSH server answers, as the daemon says."""
        status = self.status
        return (self.client.gateway, status["port"]) if status["has_ports"] else (status["address"], 22)

    def ssh(self, *command: str, check: bool = True) -> Completed:
        """ssh to the container itself, on the way that the card shows."""
        address, port = self.door
        there = Client(self.client.pid, self.client.address, address, self.client.folder)
        return there.ssh(NAME, *command, port=port, check=check)


@pytest.fixture(scope="module", params=["iptables", "lxd-proxy", "none"])
def way(host: Host, request: pytest.FixtureRequest) -> Iterator[Way]:
    """The host with another `forwarding`, and wendy on it; as it was afterwards."""
    kind = request.param
    with contextlib.ExitStack() as cleanup:
        client, more = host.client, f'listen_address = "{host.client.gateway}"'
        if kind == "none":
            client, more = labs_own_network(host, cleanup), 'network = "br0"'
        cleanup.enter_context(host.configured(f'forwarding = "{kind}"\n{more if kind != "iptables" else ""}'))
        key = client.make_key(NAME).with_suffix(".pub")
        host.admin("add-user", NAME, "--key", str(key))
        cleanup.callback(host.remove_user, NAME)
        yield Way(kind, host, client)


def labs_own_network(host: Host, cleanup: contextlib.ExitStack) -> Client:
    """A bridge of the host's, with a machine of the lab's on it that gives addresses to whoever asks."""
    client = join_client(host, "lab", "198.18.6", cleanup)
    for command in (
        "ip address flush dev to-lab",
        "ip link add br0 type bridge",
        "ip link set to-lab master br0",
        "ip address add 198.18.6.1/24 dev br0",
        "ip link set br0 up",
    ):
        host.run(command.split())
    cleanup.callback(host.run, ["ip", "link", "del", "br0"])
    leases = f"--dhcp-leasefile={client.folder / 'leases'}"
    span = "--dhcp-range=198.18.6.100,198.18.6.199,255.255.255.0,1h"
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", span, leases]
    cleanup.enter_context(client.background([*argv, "--dhcp-authoritative", "--pid-file="]))
    return client


def test_the_card_shows_the_line_that_logs_in(way: Way) -> None:
    card = way.client.ssh(NAME, check=True).stdout
    address, port = way.door
    line = f"ssh {NAME}@{address}" if way.kind == "none" else f"ssh -p {port} {NAME}@gateway"
    assert f"  {line}\n" in card
    assert way.ssh("hostname").stdout == f"{NAME}\n"


def test_the_container_sees_the_clients_own_address(way: Way) -> None:
    assert way.ssh("echo $SSH_CONNECTION").stdout.split()[0] == way.client.address


def test_a_login_starts_a_stopped_container_and_the_same_line_works(way: Way) -> None:
    before = way.door
    way.client.ssh(NAME, "stop --yes", check=True)
    status = json.loads(way.client.ssh(NAME, "status --json", check=True).stdout)
    assert status["state"] == "stopped"
    way.client.ssh(NAME, "start", check=True)
    assert way.door == before
    assert way.ssh("true").returncode == 0


def test_the_gateways_own_port_leads_to_the_container_too(way: Way) -> None:
    assert way.client.ssh(NAME, "run hostname", check=True).stdout == f"{NAME}\n"
    argv = way.client.ssh_argv(NAME, "proxy")
    with way.client.background(argv, stdin=-1, stdout=-1) as connection:
        assert connection.stdout is not None
        assert connection.stdout.readline().startswith("SSH-2.0-")


def test_known_hosts_lets_the_first_connection_ask_nothing(way: Way) -> None:
    known = way.client.folder / "known"
    known.write_text(way.client.ssh(NAME, "known-hosts", check=True).stdout.replace("gateway", way.client.gateway))
    address, port = way.door
    there = Client(way.client.pid, way.client.address, address, way.client.folder)
    strict = ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
    assert there.ssh(NAME, "true", port=port, options=strict).returncode == 0


def test_a_forward_of_ones_own(way: Way) -> None:
    added = way.client.ssh(NAME, "ports add 8080 --json")
    if way.kind == "none":
        assert (added.returncode, added.stdout) == (2, "")
        assert json.loads(added.stderr)["error"]["id"] == "ports-not-needed"
        assert "every port of your container" in way.client.ssh(NAME, "ports", check=True).stdout.lower()
        port, address = 8080, way.door[0]
    else:
        port, address = json.loads(added.stdout)[0]["port"], way.client.gateway
    web = "timeout 20 /usr/bin/perl -MIO::Socket::INET -e '"
    web += '$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,ReuseAddr=>1);$c=$s->accept;print $c "greeter\\n"\''
    with way.client.background(way.client.ssh_argv(NAME, f"run {web}")):
        wait_until(lambda: banner_from(way.client, address, port) == "greeter", 15)
    if way.kind != "none":
        way.client.ssh(NAME, f"ports remove {port}", check=True)
        assert banner_from(way.client, address, port) == "ConnectionRefusedError"


def test_a_forward_for_one_network_only_is_that_or_refused(way: Way) -> None:
    done = way.client.ssh(NAME, "ports add 8081 --from 192.0.2.0/24 --json")
    if way.kind == "iptables":
        assert json.loads(done.stdout)[0]["source"] == "192.0.2.0/24"
        way.client.ssh(NAME, "ports remove 8081", check=True)
    else:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert json.loads(way.client.ssh(NAME, "ports --json", check=True).stdout) == []


def test_a_container_reaches_no_service_of_the_host(way: Way) -> None:
    for address in (way.client.gateway, way.host.other.gateway):
        assert banner_from_container(way.host, NAME, address, 22) == ""
    assert banner_from(way.client, way.client.gateway, 22).startswith("SSH-2.0-")


def test_another_container_reaches_it_as_everybody_does_and_no_other_way(way: Way, bob: str) -> None:
    if way.kind != "none":
        assert banner_from_container(way.host, bob, *way.door).startswith("SSH-2.0-")
        assert banner_from_container(way.host, bob, way.status["address"], 22) == ""


@pytest.mark.parametrize("address", ["198.18.1.1", "198.18.6.1", "127.0.0.9"])
def test_an_address_that_a_container_only_says_it_has_is_not_connected_to(way: Way, address: str) -> None:
    """Root inside may give the interface any address; the daemon connects for `proxy`, with the host's own power."""
    change = f"ip address flush dev eth0; ip address add {address}/24 dev eth0"
    way.host.run(["lxc", "exec", NAME, "--", "sh", "-c", change])
    with way.client.background(way.client.ssh_argv(NAME, "proxy"), stdin=-1, stdout=-1, stderr=-1) as connection:
        said, complained = connection.communicate(timeout=60)
    assert (said, connection.returncode != 0, complained.count("\n")) == ("", True, 1)
    assert way.client.ssh(NAME, "restart --yes --force").returncode == 0
    assert way.ssh("true").returncode == 0


def test_rebuild_and_undo_keep_the_way_in(way: Way) -> None:
    before = way.door
    assert way.client.ssh(NAME, "rebuild --yes --force").returncode == 0
    assert (way.door, way.ssh("true").returncode) == (before, 0)
    assert way.client.ssh(NAME, "rebuild undo --yes --force").returncode == 0
    assert (way.door, way.ssh("true").returncode) == (before, 0)


def test_what_somebody_took_away_is_put_back(way: Way) -> None:
    if way.kind == "iptables":
        way.host.run(["iptables-legacy", "-t", "nat", "-F", "LABSHELL"])
    elif way.kind == "lxd-proxy":
        way.host.run(["lxc", "config", "device", "remove", NAME, f"labshell-port-{way.door[1]}"])
    else:
        way.host.run(["nft", "delete", "table", "bridge", "labshell"])
        wait_until(lambda: "syn" in way.host.run(["nft", "list", "table", "bridge", "labshell"], check=False).stdout)
    wait_until(lambda: banner_from(way.client, *way.door).startswith("SSH-2.0-"), 15)


def test_doctors_find_nothing_bad(way: Way) -> None:
    findings = json.loads(way.client.ssh(NAME, "doctor --json").stdout)
    assert [found for found in findings if found["result"] == "bad"] == []
    assert {found["check"] for found in findings} >= ({"Address"} if way.kind == "none" else {"Address", "Port"})
    on_host = json.loads(way.host.admin("doctor", "--json", check=False).stdout)
    assert [found for found in on_host if found["id"].startswith(("network", "rules", "ports"))] == []


def test_the_administrator_sees_how_each_is_reached(way: Way) -> None:
    row = next(row for row in json.loads(way.host.admin("list", "--json").stdout) if row["user"] == NAME)
    status = way.status
    assert (row["problem"], row["address"], row["port"]) == (None, status["address"], status.get("port"))
    for wrong in (["--port", "20500"], ["--desktop-port", "20019"]) if way.kind == "none" else ():
        key = str(way.client.folder / f"{NAME}.pub")
        done = way.host.admin("add-user", "wilma", "--key", key, *wrong, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_nothing_of_another_way_is_left_on_the_host(way: Way) -> None:
    rules = way.host.run(["iptables-legacy-save"]).stdout.count("-A LABSHELL ")
    devices = re.findall(r"labshell-port-\d+", way.host.run(["lxc", "config", "show", NAME]).stdout)
    assert (rules > 0, len(devices) > 0) == (way.kind == "iptables", way.kind == "lxd-proxy")


def test_an_archive_comes_back_on_the_same_way(way: Way) -> None:
    before = way.door
    way.client.ssh(NAME, "run sh -c 'echo thesis > thesis'", check=True)
    removed = way.host.admin("remove-user", NAME, "--yes", "--json").stdout
    archive = json.loads(removed)["archives"][0]
    assert not banner_from(way.client, *before).startswith("SSH-2.0-")
    way.host.admin("restore-user", archive)
    assert way.door == before
    way.host.run(["rm", archive])
    assert way.client.ssh(NAME, "run cat thesis", check=True).stdout == "thesis\n"
