"""Root inside a container against the network, the host, the other containers, and labshell's own hands."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest
from hostile import fill_beyond_its_limit, limit_disk, one_sentence, restart_engine, served_or_told, share, works
from testhost import POOL, Host, wait_until

pytestmark = pytest.mark.root
# Sends one DHCP message for each line of standard input: the frame's sender, the hardware address that it is about,
# and its options, all in hexadecimal.
SEND_DHCP = r"""
use Socket;
socket(my $socket, 17, SOCK_RAW, 0x0300) or die "socket: $!";
open(my $file, "<", "/sys/class/net/eth0/ifindex") or die; chomp(my $index = <$file>);
my $to = pack("SnlSCCa8", 17, 0x0800, $index, 1, 0, 6, "\xff" x 6);
while (my $line = <STDIN>) {
  my ($sender, $about, $options) = map { pack("H*", $_) } split(" ", $line);
  my $dhcp = pack("CCCCNnnNNNN", 1, 1, 6, 0, $., 0, 0x8000, 0, 0, 0, 0) . $about . "\0" x 202
    . pack("N", 0x63825363) . $options . "\xff";
  my $udp = pack("nnnn", 68, 67, 8 + length $dhcp, 0) . $dhcp;
  my $ip = pack("CCnnnCCnNN", 0x45, 0, 20 + length $udp, $. & 0xffff, 0, 64, 17, 0, 0, 0xffffffff);
  my $sum = 0; $sum += $_ for unpack("n10", $ip); $sum = ($sum >> 16) + ($sum & 0xffff) while $sum >> 16;
  substr($ip, 10, 2) = pack("n", ~$sum & 0xffff);
  send($socket, "\xff" x 6 . $sender . pack("n", 0x0800) . $ip . $udp, 0, $to) or die "send: $!";
}
print "sent\n";
"""
# Sends each line of standard input as the part of an Ethernet frame behind the sender's address, to everybody. OWN in it
# stands for that address.
SEND_FRAMES = r"""
socket(my $socket, 17, 3, 0x0300) or die "socket: $!";
open(my $file, "<", "/sys/class/net/eth0/ifindex") or die; chomp(my $index = <$file>);
open($file, "<", "/sys/class/net/eth0/address") or die; chomp(my $own = <$file>); $own =~ s/://g;
my $to = pack("SnlSCCa8", 17, 3, $index, 1, 0, 6, "\xff" x 6);
while (my $line = <STDIN>) {
  chomp $line;
  $line =~ s/OWN/$own/;
  send($socket, "\xff" x 6 . pack("H*", $own) . pack("H*", $line) . "\0" x 60, 0, $to) or die "send: $!";
}
print "sent\n";
"""
# Says what becomes of each of btrfs's calls that make a subvolume or a snapshot of one; 16 is ioctl.
MAKE_SUBVOLUMES = r"""
use Fcntl;
sysopen(my $folder, "/root", O_RDONLY) or die "open: $!";
for my $above (0, 0xdead << 48) {
  for my $command (0x50009401, 0x5000940e, 0x50009417, 0x50009418) {
    my $given = pack("q a4088", 0, "made$command");
    print syscall(16, fileno $folder, $above | $command, $given) ? "$!\n" : "made\n";
  }
}
"""
# Prints every frame that an interface shows for some seconds and that holds the mark, in hexadecimal.
LISTEN = r"""
my ($name, $mark) = @ARGV;
socket(my $socket, 17, 3, 0x0300) or die "socket: $!";
open(my $file, "<", "/sys/class/net/$name/ifindex") or die; chomp(my $index = <$file>);
bind($socket, pack("SnlSCCa8", 17, 3, $index, 0, 0, 0, "")) or die "bind: $!";
$| = 1; print "listening\n";
my $end = time + 8;
while ((my $left = $end - time) > 0) {
  my $ready = ""; vec($ready, fileno($socket), 1) = 1;
  next unless select($ready, undef, undef, $left);
  recv($socket, my $frame, 2000, 0);
  my $shown = unpack("H*", $frame);
  print "$shown\n" if index($shown, $mark) >= 0;
  last if index($shown, $mark . "ff") >= 0;
}
"""
MARK = "6c6162736865"  # in each frame of these tests; with ff behind it, in the last one
FRAMES = {
    "IPv6": "86dd",
    "IPv6 with a VLAN tag": "8100000186dd",
    "IPv6 with two VLAN tags": "88a800018100000286dd",
    "a protocol that is neither": "88b5",
    "802.3 with a length": "0040aaaa03000000086dd0",
}
# A whole ARP request, which passes: the engine's filters look at both addresses of the sender.
ARP = "08060001080006040001OWN{sender}0000000000000a530001" + MARK + "ff"
DISCOVER, REQUEST, DECLINE, RELEASE = "350101", "350103", "350104", "350107"
SERVER = "36040a530001"  # option 54: the bridge's address, 10.83.0.1


def inside(host: Host, user: str, script: str, *, check: bool = True, timeout: float = 60) -> str:
    """A script as root in the container of `user`, whatever its network does."""
    argv = ["lxc", "exec", user, "--", "sh", "-c", script]
    return host.run(argv, check=check, timeout=timeout).stdout.strip()


def address_of(host: Host, user: str) -> str:
    config = host.run(["lxc", "config", "device", "get", user, "eth0", "ipv4.address"])
    return config.stdout.strip()


def answers(host: Host, port: int) -> bool:
    """Whether an SSH server greets somebody who comes from outside to this port of the gateway."""
    probe = f"exec 3<>/dev/tcp/{host.client.gateway}/{port} && timeout 4 head -c 4 <&3"
    return host.client.run(["timeout", "8", "bash", "-c", probe], check=False).stdout == "SSH-"


@pytest.fixture
def sleeping_bob(host: Host, bob: str, bob_port: int) -> Iterator[str]:
    """Bob with his container stopped, so that his address is free to be taken."""
    host.client.ssh(bob, "stop --yes", check=True)
    yield bob
    works(host, bob, bob_port)


# The network --------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_from_another_receives_nothing(
    host: Host, guest: str, sleeping_bob: str, bob_port: int
) -> None:
    port = host.ssh_port(guest)
    inside(host, guest, f"ip address add {address_of(host, sleeping_bob)}/24 dev eth0")
    inside(host, guest, f"ping -c 2 -W 1 -I {address_of(host, sleeping_bob)} 10.83.0.1 || true")
    assert answers(host, port), "the thief's own port has to answer, or this shows nothing"
    assert not answers(host, bob_port)


def test_a_hardware_address_that_is_taken_from_another_receives_nothing(
    host: Host, guest: str, sleeping_bob: str, bob_port: int
) -> None:
    taken = hardware_address(host, sleeping_bob)
    address = address_of(host, sleeping_bob)
    inside(
        host, guest,
        f"ip link set eth0 down; ip link set eth0 address {taken}; ip link set eth0 up;"
        f"ip address add {address}/24 dev eth0; ip route replace default via 10.83.0.1",
    )  # fmt: skip
    assert not answers(host, bob_port)
    assert not answers(host, host.ssh_port(guest)), "who has another's hardware address reaches nobody"
    host.client.ssh(guest, "restart --force --yes", check=True)
    works(host, guest, host.ssh_port(guest))


def send_dhcp(host: Host, user: str, messages: list[tuple[str, str, str]]) -> None:
    """Messages from the container of `user`: sender, hardware address that it is about, options."""
    lines = "".join(" ".join(message).replace(":", "") + "\n" for message in messages)
    done = host.run(["lxc", "exec", user, "--", "perl", "-e", SEND_DHCP], input=lines, timeout=120)
    assert done.stdout == "sent\n"


def hardware_address(host: Host, user: str) -> str:
    return host.run(["lxc", "config", "get", user, "volatile.eth0.hwaddr"]).stdout.strip()


@pytest.mark.parametrize("invents_sender", [False, True], ids=["own sender", "invented sender"])
def test_a_flood_of_dhcp_requests_takes_nobodys_address(
    host: Host, guest: str, bob: str, bob_port: int, *, invents_sender: bool
) -> None:
    own, messages = hardware_address(host, guest), []
    for number in range(400):
        invented, wanted = f"02000000{number:04x}", f"32040a53{number:04x}"
        for options in (DISCOVER, REQUEST + wanted, REQUEST + SERVER + wanted):
            messages.append((invented if invents_sender else own, invented, options))
    send_dhcp(host, guest, messages)
    host.client.ssh(bob, "restart --yes", check=True, timeout=120)
    works(host, bob, bob_port)
    host.add_user("late")
    works(host, "late", host.ssh_port("late"))
    host.client.ssh("late", "rebuild --yes", check=True, timeout=120)
    works(host, "late", host.ssh_port("late"))
    host.remove_user("late")


@pytest.mark.parametrize("kind", [DECLINE, RELEASE], ids=["declined", "released"])
def test_an_address_that_is_given_up_in_anothers_name_stays_theirs(
    host: Host, guest: str, bob: str, bob_port: int, kind: str
) -> None:
    address = "".join(f"{int(part):02x}" for part in address_of(host, bob).split("."))
    own, bobs = hardware_address(host, guest), hardware_address(host, bob)
    for sender in (own, bobs):
        send_dhcp(host, guest, [(sender, bobs, kind + SERVER + "3204" + address)] * 3)
    host.client.ssh(bob, "restart --yes", check=True, timeout=120)
    works(host, bob, bob_port)


def test_nothing_of_the_host_answers_over_ipv6(host: Host, guest: str) -> None:
    addresses = host.run(["ip", "-6", "-o", "address", "show", "dev", "lxdbr0"]).stdout.split()
    local = [word.partition("/")[0] for word in addresses if word.startswith("fe80::")] or ["ff02::1"]
    said = inside(
        host, guest,
        f"ssh -6 -o BatchMode=yes -o ConnectTimeout=4 -o StrictHostKeyChecking=no {local[0]}%eth0 true 2>&1; true",
    )  # fmt: skip
    assert "denied" not in said.lower()
    assert "ssh" not in inside(host, guest, f"timeout 4 bash -c 'head -c 4 < /dev/tcp/{local[0]}%eth0/22' || true")


def test_no_frame_but_ipv4_and_arp_passes_a_containers_port(host: Host, guest: str, bob: str) -> None:
    """Sent raw by root in a container, and by the host to it: what arrives on the other side is seen there."""
    listen = ["perl", "-e", LISTEN]
    in_guest, in_bob = (["lxc", "exec", name, "--", *listen, "eth0", MARK] for name in (guest, bob))
    frames = [kind + MARK for kind in FRAMES.values()]

    def seen(listeners: list[list[str]], send: list[str], sender: str) -> list[list[str]]:
        """What each listener sees of the frames, and at the end of ARP in the name of `sender`."""
        arp = ARP.format(sender="".join(f"{int(part):02x}" for part in sender.split(".")))
        with contextlib.ExitStack() as running:
            started = [running.enter_context(host.background(argv, stdout=subprocess.PIPE)) for argv in listeners]
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "listening\n"
            host.run(send, input="\n".join([*frames, arp]) + "\n")
            return [process.communicate(timeout=30)[0].splitlines() for process in started]

    send_inside = ["lxc", "exec", guest, "--", "perl", "-e", SEND_FRAMES]
    arrived, with_bob = seen([[*listen, "lxdbr0", MARK], in_bob], send_inside, address_of(host, guest))
    assert [MARK + "ff" in frame for frame in arrived] == [True], "ARP arrives at the host, and nothing else"
    assert with_bob == []
    (to_guest,) = seen([in_guest], ["perl", "-e", SEND_FRAMES.replace("/eth0/", "/lxdbr0/")], "10.83.0.1")
    assert [MARK + "ff" in frame for frame in to_guest] == [True], "ARP arrives in the container, and nothing else"


def test_a_container_with_the_engines_ipv6_filter_starts_where_the_kernel_has_no_bridge_netfilter(
    host: Host, guest: str
) -> None:
    """As on a stock Debian kernel: the engine refuses the filter, which containers made earlier have."""
    switch = "net.bridge.bridge-nf-call-ip6tables"
    key = ["lxc", "config", "device", "get", guest, "eth0", "security.ipv6_filtering"]
    before = address_of(host, guest)
    host.run(["lxc", "stop", "--force", guest])
    host.run(["lxc", "config", "device", "set", guest, "eth0", "security.ipv6_filtering=true"])
    was = host.run(["sysctl", "-n", switch]).stdout.strip()
    host.run(["sysctl", "-qw", f"{switch}=0"])
    try:
        assert "requires bridge netfilter" in host.run(["lxc", "start", guest], check=False).stderr
        found = json.loads(host.admin("doctor", "--json", check=False).stdout)
        assert [(item["id"], item["subject"]) for item in found] == [("bridge-netfilter", guest)]
        host.client.ssh(guest, "start", check=True)
        assert json.loads(host.admin("doctor", "--json", check=False).stdout) == []
    finally:
        host.run(["sysctl", "-qw", f"{switch}={was}"])
    assert host.run(key).stdout.strip() == ""
    assert address_of(host, guest) == before


def test_a_false_host_name_changes_nothing_and_is_nobodys_name(
    host: Host, guest: str, bob: str, bob_port: int
) -> None:
    inside(host, guest, f"hostname {bob}; echo {bob} > /etc/hostname; dhclient -r eth0; dhclient eth0", timeout=90)
    port = host.ssh_port(guest)
    assert host.client.ssh(guest, "hostname", port=port, check=True).stdout == f"{bob}\n"
    assert json.loads(host.client.ssh(guest, "status --json", check=True).stdout)["user"] == guest
    assert f"{bob} " not in host.client.ssh(guest, "status", check=True).stdout
    works(host, bob, bob_port)
    asked = inside(host, guest, f"getent hosts {bob}.lxd || true")
    assert address_of(host, guest) not in asked


# Its own limits -----------------------------------------------------------------------------------------


def test_a_container_that_forks_to_its_limit_harms_nobody_and_can_be_restarted(
    host: Host, guest: str, bob: str, bob_port: int
) -> None:
    host.admin("set", guest, "--processes", "200", "--memory", "128MiB")  # the least that is allowed
    inside(host, guest, "for n in $(seq 500); do setsid sleep 600 < /dev/null > /dev/null 2>&1 & done", check=False)
    host.client.ssh(guest, "status", check=True)
    works(host, bob, bob_port)
    for verb in ("run true", "keys"):
        done = host.client.ssh(guest, verb, timeout=90)
        if done.returncode != 255:  # the engine's client could not begin
            served_or_told(done)
        assert "Traceback" not in done.stderr
    host.client.ssh(guest, "restart --force --yes", check=True, timeout=120)
    works(host, guest, host.ssh_port(guest))


def test_a_container_that_fills_its_disk_harms_nobody(host: Host, guest: str, bob: str, bob_port: int) -> None:
    """Without its reserve, what the engine writes there at a start does not fit; a file can be removed from outside."""
    limit_disk(host, guest)
    host.run(["sh", "-c", f"rm {POOL}/containers/{guest}/templates/labshell-reserve-*"])
    assert "quota" in host.client.ssh(guest, "run head -c 4G /dev/zero > big", timeout=120).stderr
    assert "big" in host.client.ssh(guest, "run ls").stdout
    for verb in ("status", "keys", "snapshot create full", "stop --yes"):
        served_or_told(host.client.ssh(guest, verb, timeout=120))
    refused = one_sentence(host.client.ssh(guest, "start", timeout=120))
    # It may start with the last byte, and have none left for its SSH server.
    assert "ask the administrator for more disk" in refused or "SSH server has not answered" in refused
    assert host.client.ssh(guest, "status").returncode == 0
    host.client.ssh(bob, "run head -c 100M /dev/zero > room && rm room", check=True)
    works(host, bob, bob_port)
    host.run(["lxc", "file", "delete", f"{guest}/home/{guest}/big"])
    if "SSH server" in refused:  # it runs without one
        host.run(["lxc", "stop", "--force", guest])
    works(host, guest, host.ssh_port(guest))
    restart_engine(host)  # LXD 5.0 may count the disk as in use from now on, whoever has that name


def test_nobody_makes_a_subvolume_which_would_be_outside_the_disk_limit(host: Host, guest: str) -> None:
    """Not in any of the four ways, nor with bits in the command that the kernel drops and a filter sees."""
    made = host.run(["lxc", "exec", guest, "--", "perl", "-e", MAKE_SUBVOLUMES]).stdout
    assert made.splitlines() == ["Operation not permitted"] * 8


def test_a_container_of_an_earlier_version_makes_no_subvolume_from_its_next_start(host: Host, guest: str) -> None:
    for command in ("config unset {} security.syscalls.deny", "restart --force {}"):
        host.run(["lxc", *command.format(guest).split()])
    assert "Operation not permitted" not in host.run(["lxc", "exec", guest, "--", "perl", "-e", MAKE_SUBVOLUMES]).stdout
    host.client.ssh(guest, "restart --yes", check=True)
    made = host.run(["lxc", "exec", guest, "--", "perl", "-e", MAKE_SUBVOLUMES]).stdout
    assert made.splitlines() == ["Operation not permitted"] * 8


def snapshots_on_disk(host: Host, user: str) -> list[str]:
    return host.run(["sh", "-c", f"ls {POOL}/containers-snapshots/{user} 2>/dev/null || true"]).stdout.split()


def go_back(host: Host, user: str) -> None:
    """To the snapshot `before`, at once or after the engine has been restarted as the sentence says."""
    refused = served_or_told(host.client.ssh(user, "snapshot restore before --yes", timeout=120))
    if refused:
        assert "until the administrator restarts the engine" in refused
        restart_engine(host)
        host.client.ssh(user, "snapshot restore before --yes", check=True, timeout=120)


def test_a_snapshot_on_a_full_disk_is_refused_and_leaves_nothing_behind(
    host: Host, guest: str, bob: str, bob_port: int
) -> None:
    """LXD 5.0 makes one, forgets it, and cannot delete the container from then on."""
    limit_disk(host, guest)
    host.client.ssh(guest, "snapshot create before", check=True)
    fill_beyond_its_limit(host, guest)
    refused = one_sentence(host.client.ssh(guest, "snapshot create full"))
    assert "disk of the container is full" in refused
    assert "cannot be kept" in refused
    assert snapshots_on_disk(host, guest) == ["before"]
    go_back(host, guest)
    works(host, guest, host.ssh_port(guest))
    works(host, bob, bob_port)


def test_a_container_with_a_snapshot_that_was_left_is_removed_when_the_administrator_has_done_what_doctor_says(
    host: Host, guest: str
) -> None:
    limit_disk(host, guest)
    fill_beyond_its_limit(host, guest)
    assert "flags" in host.run(["lxc", "snapshot", guest, "half"], check=False).stderr
    assert snapshots_on_disk(host, guest) == ["half"]
    refused = host.client.ssh(guest, "snapshot create half")  # it would be taken for the new one
    assert "did not finish a snapshot" in one_sentence(refused)
    refused = host.admin("remove-user", guest, "--yes", "--no-archive", check=False)
    assert "did not finish a snapshot" in refused.stderr
    assert "The engine said: " in refused.stderr
    found = json.loads(host.admin("doctor", "--json", check=False).stdout)
    remedy = next(finding["remedy"] for finding in found if finding["id"] == "snapshot-left")
    host.run(["sh", "-c", remedy])
    host.remove_user(guest)
    assert guest not in host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout.split()
    host.add_user(guest)


@pytest.mark.parametrize("verbs", [[], ["stop --yes"]], ids=["running", "stopped"])
def test_a_snapshot_is_the_way_out_of_a_full_disk_as_often_as_it_is_needed(
    host: Host, guest: str, verbs: list[str]
) -> None:
    """Or else the sentence that the administrator has to restart the engine first, and then it is."""
    limit_disk(host, guest)
    host.client.ssh(guest, "run echo precious > thesis", check=True)
    host.client.ssh(guest, "snapshot create before", check=True)
    for _ in range(2):
        host.recount_disks()  # going back deletes much, and the kernel may have stopped to count
        assert "quota" in host.client.ssh(guest, "run head -c 4G /dev/zero > big", timeout=120).stderr
        for verb in verbs:
            host.client.ssh(guest, verb, check=True, timeout=120)
        go_back(host, guest)
        works(host, guest, host.ssh_port(guest))
        assert host.client.ssh(guest, "run cat thesis; ls", check=True).stdout == "precious\nthesis\n"


def test_a_container_that_ignores_its_shutdown_is_said_and_can_be_forced(host: Host, guest: str) -> None:
    inside(host, guest, "systemctl mask halt.target poweroff.target reboot.target systemd-halt.service")
    done = host.client.ssh(guest, "stop --yes", timeout=90)
    assert "--force" in one_sentence(done)
    works(host, guest, host.ssh_port(guest))
    host.client.ssh(guest, "stop --force --yes", check=True)
    inside_is_stopped = host.run(["lxc", "list", "--format", "csv", "--columns", "s", f"^{guest}$"]).stdout.strip()
    assert inside_is_stopped == "STOPPED"


# Paths that it laid -------------------------------------------------------------------------------------

PLANTS = {
    "home is a link out": "mv /home/guest /home/real; ln -s /proc/1/root/etc /home/guest",
    "home is gone": "mv /home/guest /home/real",
    ".ssh is a fifo": "rm -r /home/guest/.ssh; mkfifo /home/guest/.ssh",
    ".ssh is a file without end": "rm -r /home/guest/.ssh; ln -s /dev/zero /home/guest/.ssh",
    "keys are a folder": "rm /home/guest/.ssh/authorized_keys; mkdir /home/guest/.ssh/authorized_keys",
    "keys are huge": "head -c 50M /dev/zero > /home/guest/.ssh/authorized_keys",
    "keys cannot be changed": "chattr +i /home/guest/.ssh/authorized_keys || true",
    "etc is a link": "cp -a /etc /etc-real; ln -sfn /proc/1/root/root /etc/ssh-planted; rm -f /etc/hostname; mkfifo /etc/hostname",
    "no shell": "chmod 000 /bin/bash /bin/sh",
}


@contextlib.contextmanager
def watched(host: Host) -> Iterator[None]:
    """The host's own files and accounts are the same after the block."""
    look = "find /etc /root /home -xdev -newer /run/before -type f ! -path '/etc/labshell/keys/*' | sort"
    host.run(["touch", "/run/before"])
    yield
    assert host.run(["sh", "-c", look]).stdout == ""


@pytest.mark.parametrize("plant", share(PLANTS, 3))
def test_what_was_laid_in_a_container_leads_no_verb_to_the_host(
    host: Host, guest: str, bob: str, bob_port: int, plant: str
) -> None:
    port = host.ssh_port(guest)
    public = host.client.make_key("second").with_suffix(".pub").read_text()
    with watched(host):
        inside(host, guest, PLANTS[plant])
        served_or_told(host.client.ssh(guest, "keys add", input=public, timeout=120))
        served_or_told(host.client.ssh(guest, "keys", timeout=60))
        served_or_told(host.client.ssh(guest, "snapshot create planted", timeout=60))
        served_or_told(host.client.ssh(guest, "status", timeout=60))
        done = host.client.ssh(guest, "run id", timeout=60)
        if done.returncode not in (126, 127):  # what a shell says of its own
            served_or_told(done)
        host.client.ssh(guest, "rebuild --yes", check=True, timeout=120)
    works(host, guest, port)
    works(host, bob, bob_port)


FLOOD = "rm /bin/sh; printf '#!/usr/bin/perl\\n$SIG{TERM} = q(IGNORE); print q(x) x 65536 while 1;' > /bin/sh; chmod +x /bin/sh"


def test_a_program_inside_that_prints_without_end_fills_nothing_of_the_host(host: Host, guest: str) -> None:
    """Whatever labshell runs in a container is the container's own program. The host's disk keeps nothing of it."""
    public = host.client.make_key("second").with_suffix(".pub").read_text()
    port = host.ssh_port(guest)
    inside(host, guest, FLOOD)
    before = host.run(["du", "-sk", "/var/log/lxd"]).stdout.split()[0]
    done = host.client.ssh(guest, "keys add", input=public, timeout=120)
    assert done.returncode == 75
    assert "timed out" in one_sentence(done)
    assert int(host.run(["du", "-sk", "/var/log/lxd"]).stdout.split()[0]) < int(before) + 1024
    assert host.run(["find", "/var/log/lxd", "-name", "exec_*"]).stdout == ""
    ps = ["lxc", "exec", guest, "--", "pgrep", "-c", "perl"]
    wait_until(lambda: host.run(ps, check=False).stdout == "0\n", 10)

    # The host's own door is changed all the same.
    other = host.client.make_key("guest-new")
    done = host.admin("set", guest, "--key", str(other.with_suffix(".pub")), check=False)
    assert done.returncode == 75
    assert "updating the container failed" in done.stderr
    assert host.client.ssh(guest, "status").returncode == 255
    host.run(["lxc", "exec", guest, "--", "bash", "-c", "ln -sf dash /bin/sh"])
    host.admin("set", guest, "--key", str(other.with_suffix(".pub")))
    assert host.client.ssh(guest, "hostname", key=other, port=port, check=True).stdout == "guest\n"
    assert host.client.ssh(guest, "hostname", port=port).returncode == 255


# Marks and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "user.labshell.owner=bob", "user.labshell.uid=0", "user.labshell.uid=x"])
def test_a_container_without_its_owners_mark_serves_nobody(host: Host, guest: str, bob: str, mark: str) -> None:
    assert bob
    keys = ["user.labshell.owner", "user.labshell.uid"]
    before = {key: host.run(["lxc", "config", "get", guest, key]).stdout.strip() for key in keys}
    assert all(before.values())
    if mark:
        host.run(["lxc", "config", "set", guest, mark])
    else:
        for key in keys:
            host.run(["lxc", "config", "unset", guest, key])
    done = host.client.ssh(guest, "start", timeout=60)
    assert one_sentence(done)
    host.admin("reconcile")
    assert not answers(host, host.ssh_port(guest))
    for key, value in before.items():
        host.run(["lxc", "config", "set", guest, f"{key}={value}"])
    works(host, guest, host.ssh_port(guest))


def test_a_name_that_is_used_again_opens_nothing_of_before(host: Host) -> None:
    old_key = host.add_user("reborn")
    old_port, old_uid = host.ssh_port("reborn"), host.run(["id", "-u", "reborn"]).stdout
    host.client.ssh("reborn", "run echo secret > mine", check=True)
    host.client.ssh("reborn", "snapshot create one", check=True)
    with host.client.background(host.client.ssh_argv("reborn", tty=True)):
        host.remove_user("reborn")
    assert host.run(["pgrep", "-u", old_uid.strip()], check=False).stdout == ""
    new_key = host.client.make_key("another")
    host.admin("add-user", "reborn", "--key", str(new_key.with_suffix(".pub")))
    try:
        assert host.ssh_port("reborn") != old_port
        assert host.run(["id", "-u", "reborn"]).stdout != old_uid
        assert host.client.ssh("reborn", "status", key=old_key).returncode == 255
        assert host.client.ssh("reborn", "true", key=old_key, port=host.ssh_port("reborn")).returncode == 255
        assert not answers(host, old_port)
        assert host.client.ssh("reborn", "run ls", key=new_key, check=True).stdout == ""
        assert json.loads(host.client.ssh("reborn", "snapshot --json", key=new_key, check=True).stdout) == []
    finally:
        host.remove_user("reborn")


@pytest.mark.parametrize(
    "name", ["bob--new", "bob--1", "template", "root", "labshell", "Bob", "bob.", "bob/..", "b\u043eb"]
)
def test_a_name_that_could_be_taken_for_anothers_is_refused(host: Host, bob: str, name: str) -> None:
    assert bob
    key = str(host.client.make_key("likebob").with_suffix(".pub"))
    before = host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout
    done = host.admin("add-user", name, "--key", key, check=False)
    assert done.returncode == 2, done
    assert one_sentence(done)
    assert host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout == before


# Opens as many terminals as it is told to, on a devpts of its own.
TERMINALS = """
mount -t devpts -o ptmxmode=666 own /mnt && ulimit -n 10000
exec perl -e 'for (1..$ARGV[0]) { open($_[$_], "+<", "/mnt/ptmx") or die $! } $| = 1; print "open\\n"; <STDIN>' $1
"""


def test_thousands_of_terminals_of_one_leave_some_for_others(host: Host, guest: str, alice: str) -> None:
    argv = ["lxc", "exec", guest, "--", "unshare", "-m", "sh", "-ec", TERMINALS, "sh", "4000"]
    with host.background(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hostile:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == "open\n"
        done = host.client.ssh(alice, "run tty", tty=True, check=True, timeout=60)
        assert "/dev/pts/" in done.stdout
