"""Root inside a container against the kernel's tables that all containers share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from hostile import share, works
from testhost import Client, Host, wait_until

from labshell.forwarding import tracking

pytestmark = pytest.mark.root
# Opens TCP connections by forged packets. A container sends both ends of each: what its own forwarded port answers
# comes from it, too. `end` says how far each goes: syn, open, closed (TIME_WAIT) or reset (CLOSE).
FLOOD = r"""
use Socket;
my ($own, $gateway, $port, $end, $count) = @ARGV;
socket(my $socket, AF_INET, SOCK_RAW, 255) or die "socket: $!";
my ($from, $to) = (inet_aton($own), inet_aton($gateway));
sub segment {
  my ($here, $there, $flags, $number, $answered) = @_;
  my $tcp = pack("nnNNCCnnn", $here, $there, $number, $answered, 0x50, $flags, 0xffff, 0, 0);
  my $sum = unpack("%32n*", $from . $to . pack("nn", 6, 20) . $tcp);
  $sum = ($sum >> 16) + ($sum & 0xffff) while $sum >> 16;
  substr($tcp, 16, 2) = pack("n", ~$sum & 0xffff);
  my $ip = pack("CCnnnCCna4a4", 0x45, 0, 40, 0, 0, 64, 6, 0, $from, $to);
  send($socket, $ip . $tcp, 0, pack_sockaddr_in(0, $to));
}
my ($FIN, $SYN, $RST, $ACK) = (1, 2, 4, 16);
for my $mine (2000 .. 1999 + $count) {
  segment($mine, $port, $SYN, 100, 0);
  next if $end eq "syn";
  segment(22, $mine, $SYN | $ACK, 200, 101);
  segment($mine, $port, $ACK, 101, 201);
  if ($end eq "closed") {
    segment($mine, $port, $FIN | $ACK, 101, 201);
    segment(22, $mine, $FIN | $ACK, 201, 102);
    segment($mine, $port, $ACK, 102, 202);
  }
  segment($mine, $port, $RST | $ACK, 101, 201) if $end eq "reset";
}
"""
# The sender's own kernel must not answer for the connections that it does not know.
DEAF = "ip rule add pref 0 iif eth0 ipproto tcp blackhole"
OTHERS = 200  # entries of everybody else, and of the moment in which the kernel counts
CLOSED = tracking.NEW_AT_ONCE + tracking.NEW_A_SECOND * tracking.CLOSED_SECONDS
FLOODS = {"open": (12_000, tracking.CONNECTIONS), "closed": (20_000, tracking.CONNECTIONS + CLOSED),
          "reset": (20_000, tracking.CONNECTIONS + CLOSED)}  # fmt: skip


def entries(host: Host) -> int:
    return int(host.read("/proc/sys/net/netfilter/nf_conntrack_count"))


def address_of(host: Host, user: str) -> str:
    return host.run(["lxc", "config", "device", "get", user, "eth0", "ipv4.address"]).stdout.strip()


@pytest.fixture(autouse=True, scope="module")
def key_of_root(host: Host) -> None:
    """The administrator logs in as root."""
    public_key = host.client.make_key("root").with_suffix(".pub").read_text()
    host.run(["install", "-D", "-m", "600", "/dev/stdin", "/root/.ssh/authorized_keys"], input=public_key)


@pytest.fixture
def deaf_server(host: Host) -> Iterator[Client]:
    """The other server of the campus, which answers no TCP while it forges."""
    host.other.run(["sh", "-c", f"{DEAF} && ip rule add pref 1 lookup local && ip rule del pref 0 lookup local"])
    yield host.other
    host.other.run(["sh", "-c", "ip rule add pref 0 lookup local; ip rule del pref 0 iif eth0; ip rule del pref 1"])


def flooding(machine: Client | Host, argv: list[str], most: int, host: Host, others: dict[str, int]) -> None:
    """Run a flood to its end; the table stays below `most`, and the others log in meanwhile."""
    with machine.background(argv, stdin=subprocess.DEVNULL) as flood:
        for user, port in others.items():
            works(host, user, port)
        host.client.ssh("root", "labshell-admin list", check=True)
        highest = 0
        while flood.poll() is None:
            highest = max(highest, entries(host))
        assert flood.returncode == 0
    assert tracking.CONNECTIONS / 2 < max(highest, entries(host)) < most + OTHERS


@pytest.mark.parametrize("end", share(FLOODS, 1))
def test_connections_that_a_container_forges_fill_no_table_and_go_when_it_stops(
    host: Host, guest: str, bob: str, bob_port: int, end: str
) -> None:
    count, most = FLOODS[end]
    own = address_of(host, guest)
    local = "ip rule add pref 1 lookup local && ip rule del pref 0 lookup local"
    host.run(["lxc", "exec", guest, "--", "sh", "-c", f"{DEAF} && {local}"])
    forge = ["perl", "-e", FLOOD, own, "10.83.0.1", str(host.ssh_port(guest)), end, str(count)]
    flooding(host, ["lxc", "exec", guest, "--", *forge], most, host, {bob: bob_port})
    host.client.ssh(guest, "stop --force --yes", check=True)
    wait_until(lambda: entries(host) < OTHERS, 15)


def test_connections_forged_from_outside_to_one_port_fill_no_table(
    host: Host, guest: str, bob: str, bob_port: int, deaf_server: Client
) -> None:
    target = str(host.ssh_port(guest))
    forge = ["perl", "-e", FLOOD, deaf_server.address, deaf_server.gateway, target, "syn", "12000"]
    flooding(deaf_server, forge, tracking.CONNECTIONS, host, {bob: bob_port})
    assert host.client.ssh(guest, "run hostname", check=True).stdout == f"{guest}\n"
    host.run(["lxc", "stop", "--force", guest])
    wait_until(lambda: entries(host) < OTHERS, 60)  # at the daemon's next look, which is rarer on a busy host


# As each of some users in turn: keys of 10,000 bytes, as many as the kernel takes; prints the most.
KEYS = r"""
my $most = 0;
for my $uid (2000 .. 2019) {
  my $pid = fork;
  if (!$pid) {
    syscall(117, $uid, $uid, $uid) == 0 or die "setresuid: $!";
    my ($type, $content, $count) = ("user", "x" x 10000, 0);
    for (1 .. 300) { my $name = "key$_"; last if syscall(248, $type, $name, $content, 10000, -4) < 0; $count++ }
    syscall(250, 7, -4);
    exit($count > 255 ? 255 : $count);
  }
  waitpid($pid, 0);
  $most = $? >> 8 if $? >> 8 > $most;
}
print $most;
"""


def test_keys_of_the_kernel_have_a_limit_for_each_user_of_a_container(host: Host, guest: str) -> None:
    """As after a boot: set-up itself raises limits and lowers none."""
    host.run(["sysctl", "--quiet", "--load", "/etc/sysctl.d/60-labshell.conf"], check=False)
    most = int(host.run(["lxc", "exec", guest, "--", "perl", "-e", KEYS]).stdout)
    assert 1 <= most <= 5


def test_requests_for_an_address_make_no_entries(host: Host, guest: str) -> None:
    """They come from 0.0.0.0, which is everybody's: counted, one container's would keep out all the others'."""
    before = entries(host)
    send = (
        "use Socket; socket(my $socket, AF_INET, SOCK_RAW, 255) or die $!; my $all = INADDR_BROADCAST;"
        "setsockopt($socket, SOL_SOCKET, SO_BROADCAST, 1); setsockopt($socket, SOL_SOCKET, 25, q(eth0));"
        "my $ip = pack(q(CCnnnCCna4a4), 0x45, 0, 28, 1, 0, 64, 17, 0, INADDR_ANY, $all);"
        "for (2000 .. 2999) { send($socket, $ip . pack(q(nnnn), $_, 67, 8, 0), 0, pack_sockaddr_in(0, $all)) or die $! }"
        "print q(sent)"
    )
    assert host.run(["lxc", "exec", guest, "--", "perl", "-e", send]).stdout == "sent"
    assert entries(host) < before + OTHERS
