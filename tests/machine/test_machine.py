"""labshell from nothing on a stock Debian: its own kernel, AppArmor, cgroup v2, a reboot and a power cut.

The tests build on each other; the last one takes labshell away.
"""

from __future__ import annotations

import json
import re

import pytest
from lab import SSH, Lab, step

pytestmark = pytest.mark.machine
MOST_TIMES_SLOWER = 4  # a login into a container against one into the machine itself; 25 s would be 6 times as long
MARK = "6c6162736865"
# Sends a frame of this type with this payload.
SEND = r"""
my ($type, $payload) = @ARGV;
socket(my $socket, 17, 3, 0x0300) or die "socket: $!";
open(my $file, "<", "/sys/class/net/eth0/ifindex") or die; chomp(my $index = <$file>);
open($file, "<", "/sys/class/net/eth0/address") or die; chomp(my $own = <$file>); $own =~ s/://g;
my $to = pack("SnlSCCa8", 17, 3, $index, 1, 0, 6, "\xff" x 6);
my $frame = "\xff" x 6 . pack("H*", $own) . pack("H*", $type . $payload) . "\0" x 60;
for (1 .. 3) { send($socket, $frame, 0, $to) or die "send: $!"; }
"""
LISTEN = r"""
import socket, sys, time
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.bind(("lxdbr0", 0))
print("listening", flush=True)
listener.settimeout(0.5)
end, seen = time.monotonic() + float(sys.argv[1]), set()
while time.monotonic() < end:
    try:
        frame = listener.recv(2000)
    except TimeoutError:
        continue
    if bytes.fromhex(sys.argv[2]) in frame:
        seen.add(frame[12:14].hex() + " " + ".".join(map(str, frame[26:30])))
print("\n".join(sorted(seen)))
"""


def milliseconds(lab: Lab, command: str) -> int:
    """The time of the quickest of three runs."""
    script = f"for _ in 1 2 3; do a=$(date +%s%N); {command} </dev/null >/dev/null; b=$(date +%s%N); echo $(((b - a) / 1000000)); done"
    return min(map(int, lab.run(script).split()))


def ipv4(source: str, payload: str) -> str:
    """An IPv4 packet from `source` to everybody, as hexadecimal digits; nobody looks at its checksum on the way."""
    address = "".join(f"{int(part):02x}" for part in source.split("."))
    return f"4500003c0000400040110000{address}ffffffff1000100000280000{payload}"


def address_of(lab: Lab, user: str) -> str:
    return lab.run(f"lxc config device get {user} eth0 ipv4.address </dev/null").strip()


def test_the_machine_is_a_stock_one(lab: Lab) -> None:
    assert re.match(r"6\.\d+\.\d+.*-amd64\n", lab.run("uname -r"))
    assert lab.run("cat /sys/module/apparmor/parameters/enabled; stat -fc %T /sys/fs/cgroup") == "Y\ncgroup2fs\n"
    assert "br_netfilter" not in lab.run("cat /proc/modules")


def test_doctor_finds_nothing(lab: Lab) -> None:
    with step("doctor of the host"):
        assert json.loads(lab.run("labshell-admin doctor --json </dev/null", check=False)) == []
    with step("doctor of the user"):
        found = json.loads(lab.ssh("alice", "doctor --json"))
    assert [item for item in found if item["result"] != "good"] == []


def test_a_login_has_a_session_and_does_not_wait_for_it(lab: Lab) -> None:
    port = lab.port("alice")
    shown = lab.ssh(
        "alice",
        "'echo $XDG_RUNTIME_DIR; loginctl --no-legend list-sessions; systemctl is-active systemd-logind'",
        port,
    )
    assert re.match(r"/run/user/\d+\n", shown)
    assert "alice" in shown
    assert shown.endswith("active\n")
    lab.run("cat /root/.ssh/id_ed25519.pub >>/root/.ssh/authorized_keys")
    with step("logins"):
        machine = milliseconds(lab, f"{SSH} root@localhost true")
        gateway = milliseconds(lab, f"{SSH} alice@localhost run true")
        inside = milliseconds(lab, f"{SSH} -p {port} alice@localhost true")
    with step(f"a login takes {machine} ms into the machine, {gateway} by the gateway, {inside} by the port"):
        assert inside < MOST_TIMES_SLOWER * machine


def test_limits_are_enforced(lab: Lab) -> None:
    with step("limits"):
        lab.run("labshell-admin set alice --memory 400MiB --processes 200 </dev/null")
        lab.ssh("alice", "start")
        forks = "'for i in $(seq 300); do sleep 120 & done; wait'"  # where each fork takes a tenth of a second, too
        eats = """perl -e '$x = "x" x (600 << 20); print "all of it"'"""
        assert lab.run("cat /sys/fs/cgroup/lxc.payload.alice/{pids,memory}.max").split() == ["200", str(400 << 20)]
        assert "all of it" not in lab.run(f"lxc exec alice -- {eats} </dev/null", check=False)
        assert "Resource temporarily unavailable" in lab.run(
            f"lxc exec alice -- bash -c {forks} </dev/null 2>&1", check=False
        )
        lab.wait_until(f"{SSH} alice@localhost run hostname </dev/null | grep -x alice", 400)


def test_a_container_boots_with_the_least_that_is_allowed(lab: Lab) -> None:
    lab.run("labshell-admin set bob --memory 128MiB --processes 200 </dev/null")
    with step("restart with the least"):
        lab.ssh("bob", "restart --yes")
    assert lab.ssh("bob", "'systemctl --failed --no-legend; hostname'", lab.port("bob")) == "bob\n"


def test_no_ipv6_frame_and_no_foreign_address_passes_a_containers_port(lab: Lab) -> None:
    alice, bob = address_of(lab, "alice"), address_of(lab, "bob")
    frames = {"86dd": MARK, "0800": ipv4(bob, MARK), "0800 ": ipv4(alice, MARK)}
    sends = "\n".join(
        f"lxc exec alice -- perl -e '{SEND}' {kind.strip()} {payload} </dev/null" for kind, payload in frames.items()
    )
    with step("frames"):
        seen = lab.run(
            f"cat >/tmp/listen.py <<'END'\n{LISTEN}\nEND\npython3 /tmp/listen.py 90 {MARK} >/tmp/seen & listener=$!\n"
            f"until grep -q listening /tmp/seen; do sleep 0.2; done\n{sends}\nwait $listener; cat /tmp/seen"
        )
    assert seen.split("\n")[1:-1] == [f"0800 {alice}"]


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_containers_and_ports_are_back(lab: Lab, how: str) -> None:
    port = lab.port("alice")
    lab.ssh("alice", f"'echo {how.partition(' ')[0]} > kept; sync'", port)
    lab.run("sync")
    with step(how):
        if how == "reboot":
            lab.control("reboot", "labshell")
        else:
            lab.control("cut", "labshell")
            lab.control("start", "labshell")
    with step("until alice's port answers"):
        lab.wait_until(f"{SSH} -o ConnectTimeout=20 -p {port} alice@localhost cat kept </dev/null", 600)
    assert lab.port("alice") == port
    assert lab.ssh("bob", "hostname", lab.port("bob")) == "bob\n"
    errors = json.loads(lab.run("labshell-admin doctor --json </dev/null", check=False))
    assert [item for item in errors if item["severity"] == "error"] == []


def test_uninstall_leaves_nothing(lab: Lab) -> None:
    with step("uninstall"):
        lab.run("/shipped/tree/scripts/uninstall --yes </dev/null")
    assert "LABSHELL" not in lab.run("iptables-legacy-save; iptables-nft-save; nft list ruleset")
    assert lab.run("nft list tables").count("labshell") == 0
    assert lab.run("getent passwd alice bob; getent group labshell", check=False) == ""
    assert lab.run("systemctl list-unit-files 'labshell*' --no-legend", check=False) == ""
    assert lab.run("lxc list --format csv --columns n </dev/null") == ""
    assert lab.run("ls -d /opt/labshell /public /run/labshell 2>/dev/null", check=False) == ""
