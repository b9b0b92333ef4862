"""What bench measures on: a test host with people, an account with /bin/true, one with a shell in the old style."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testhost import Client, Completed, Host, exit_status, running_host, wait_until

MEGABYTES = 200
FEW, MANY = 10, 10_000
KEY = "/root/bench_host_key"
# The second field report's login shell, on LXD: what it asks before it prints its hints.
OLD_SHELL = """\
#!/bin/bash
user=old
name=alice
if ! sudo lxc info $name | grep -q '^Status: RUNNING'; then sudo lxc start $name; fi
address=$(sudo lxc list "^$name$" -c 4 --format csv | cut -d' ' -f1)
port=$(cat /public/ports/$name)
rule="PREROUTING -p tcp --dport $port -j DNAT --to-destination $address:22"
sudo iptables -t nat -C $rule 2>/dev/null || sudo iptables -t nat -A $rule
echo "Your container is running. Log in with: ssh -p $port $name@gateway"
"""
# Sends for a while over so many streams and prints bytes a second.
SEND = """
import socket, sys, threading, time
address, port, streams, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
block, sent = bytes(1 << 20), [0] * streams
connections = [socket.create_connection((address, port)) for _ in range(streams)]
began = time.perf_counter()
def send(number):
    while time.perf_counter() - began < length:
        sent[number] += connections[number].send(block)
threads = [threading.Thread(target=send, args=(number,)) for number in range(streams)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(sent) / (time.perf_counter() - began))
"""
# Opens and closes connections one after the other and prints how many a second.
CONNECT = """
import socket, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
began = time.perf_counter()
for _ in range(count):
    socket.create_connection((address, port)).close()
print(count / (time.perf_counter() - began))
"""
# Takes connections and throws away what comes, in a container that has no Python.
SINK = """
use IO::Socket;
my $l = IO::Socket::INET->new(Listen => 512, LocalPort => $ARGV[0], ReuseAddr => 1) or die;
$SIG{CHLD} = 'IGNORE';
for (1..16) { last unless fork }
while (my $c = $l->accept) { 1 while sysread($c, my $x, 1 << 20); close $c }
"""
ALLOCATION = """
import time
from labshell.config import Paths
from labshell.model.ports import PortPool
from labshell.host.ports import PortRegistry, listening_ports
registry = PortRegistry(Paths(), PortPool(20000, 45000, 2), 0, listening=listening_ports)
for _ in range(2):
    began = time.perf_counter()
    registry.ensure("allocated")
    took = time.perf_counter() - began
    registry.give_up("allocated")
print(took)
"""
BANNER = """
import socket, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        # Whoever is not there yet answers nothing at all: ask again soon.
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.01) as connection:
            connection.settimeout(0.5)
            if connection.recv(4) == b"SSH-":
                sys.exit(0)
    except OSError:
        time.sleep(0.005)
sys.exit(1)
"""


class Lab:
    """A host and a laptop, with what bench does on them."""

    SINK = 5001

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sink_port = 0
        self.cleanup = contextlib.ExitStack()
        self._crowded: Lab | None = None

    def ssh(self, user: str, *command: str, **options: object) -> Completed:
        return self.host.client.ssh(user, *command, check=True, **options)  # type: ignore[arg-type]

    def address(self, user: str) -> str:
        return str(json.loads(self.host.admin("show", user, "--json").stdout)["address"])

    def port(self, user: str) -> int:
        return self.host.ssh_port(user)

    def stop(self, user: str) -> None:
        self.host.run(["lxc", "stop", "--force", user], check=False)

    def delete(self, name: str) -> None:
        self.host.run(["lxc", "delete", "--force", name])

    def engine_start(self, name: str) -> None:
        body = '{"action": "start", "timeout": 60}'
        self.host.run(["lxc", "query", "--wait", "-X", "PUT", "-d", body, f"/1.0/instances/{name}/state"])

    def engine_add(self, name: str) -> None:
        """What the engine alone takes: a copy with an address of its own, its start, and a banner."""
        address = "10.83.0.250"
        self.host.run(["lxc", "copy", "template", name, "-c", "security.idmap.isolated=true"])
        self.host.run(["lxc", "config", "device", "override", name, "eth0", f"ipv4.address={address}"])
        # A clone by hand has no host keys, without which its server does not begin.
        self.host.run(["lxc", "file", "push", "--mode", "600", KEY, f"{name}/etc/ssh/ssh_host_ed25519_key"])
        self.host.run(["lxc", "start", name])
        self.banner(address, 22)

    def banner(self, address: str, port: int) -> None:
        self.host.client.run(["/usr/bin/python3", "-S", "-c", BANNER, address, str(port)])

    @contextlib.contextmanager
    def login(self, user: str, verb: str) -> Iterator[None]:
        """A login that goes on meanwhile."""
        with self.host.client.background(self.host.client.ssh_argv(user, verb), stdout=subprocess.DEVNULL) as process:
            yield
            exit_status(process, 60)

    @contextlib.contextmanager
    def sink(self) -> Iterator[None]:
        """Somebody in alice's container who takes whatever is sent, and a forward that leads there."""
        row = json.loads(self.ssh("alice", f"ports add {self.SINK} --json").stdout)[0]
        self.sink_port = row["port"]
        self.host.run(["sh", "-c", "cat > /tmp/sink.pl"], input=SINK)
        self.host.run(["lxc", "file", "push", "/tmp/sink.pl", "alice/root/sink.pl"])
        command = ["lxc", "exec", "alice", "--", "perl", "/root/sink.pl", str(self.SINK)]
        with subprocess.Popen(self.host.argv(command), stdin=subprocess.DEVNULL) as process:
            listening = ["lxc", "exec", "alice", "--", "ss", "-Hltn", f"sport = {self.SINK}"]
            wait_until(lambda: self.host.run(listening).stdout, 15)
            try:
                yield
            finally:
                self.host.run(["lxc", "exec", "alice", "--", "sh", "-c", "kill $(pgrep -f sink.pl)"], check=False)
                process.wait(10)
        self.ssh("alice", f"ports remove {self.sink_port}")

    def userspace_proxy(self) -> int:
        """A proxy device without nat that leads to the same place."""
        port = 29990
        ends = [f"listen=tcp:{self.host.client.gateway}:{port}", f"connect=tcp:127.0.0.1:{self.SINK}"]
        shown = self.host.run(["lxc", "config", "device", "list", "alice"]).stdout
        if "bench" not in shown.split():
            self.host.run(["lxc", "config", "device", "add", "alice", "bench", "proxy", *ends])
        return port

    def send(self, address: str, port: int, streams: int) -> float:
        argv = ["/usr/bin/python3", "-c", SEND, address, str(port), str(streams), "0.4"]
        return float(self.host.client.run(argv).stdout)

    def connect_often(self, address: str, port: int) -> float:
        """So few that the limit on new ones is not reached in a row of pairs."""
        return float(self.host.client.run(["/usr/bin/python3", "-c", CONNECT, address, str(port), "100"]).stdout)

    def ssh_throughput(self, *, through_gateway: bool) -> float:
        """Bytes a second into the container, by the block that ssh-config prints or by the port."""
        folder = self.host.client.folder
        identity = f"    IdentityFile {folder}/alice\n    UserKnownHostsFile {folder}/known_hosts\n    StrictHostKeyChecking accept-new\n"
        block = self.ssh("alice", "ssh-config").stdout
        block = block.replace("ProxyCommand ssh ", f"ProxyCommand ssh -F {folder}/config ")
        address = f"    HostName {self.host.client.gateway}\n"
        (folder / "config").write_text(f"{block}Host gateway\n{address}Host *\n{identity}")
        port = f"{address}    Port {self.port('alice')}\n    User alice\n"
        (folder / "port").write_text(f"Host alice.gateway\n{port}{identity}")
        argv = [
            "ssh",
            "-F",
            str(folder / ("config" if through_gateway else "port")),
            "-T",
            "alice.gateway",
            "cat > /dev/null",
        ]

        def took(megabytes: int) -> float:
            began = time.perf_counter()
            with (folder / "zeros").open("rb") as source:
                process = self.host.client.popen(argv, stdin=source if megabytes else subprocess.DEVNULL)
                assert exit_status(process, 120) == 0
            return time.perf_counter() - began

        if not (folder / "zeros").exists():
            (folder / "zeros").write_bytes(bytes(MEGABYTES << 20))
        return (MEGABYTES << 20) / max(0.01, took(MEGABYTES) - took(0))

    def logins_at_once(self, user: str, verb: str, count: int) -> None:
        self._all_end_well([self.host.client.ssh_argv(user, verb)] * count)

    def _all_end_well(self, commands: Sequence[list[str]]) -> None:
        """Run them at once on the laptop, to their ends."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        running = [self.host.client.popen(argv, **streams) for argv in commands]
        failed = [login.communicate()[1] for login in running if exit_status(login, 120)]
        assert not failed, f"{len(failed)} of {len(commands)}: {failed[0]}"
        for login in running:
            assert login.stderr is not None
            login.stderr.close()

    def crowd(self, count: int) -> list[str]:
        """So many people more with a container each; they go with the host."""
        names = [f"crowd{number}" for number in range(count)]
        for name in names:
            self.host.add_user(name)
        return names

    def stop_all(self, names: Sequence[str]) -> None:
        self.host.run(["lxc", "stop", "--force", *names], check=False)

    def engine_start_all(self, names: Sequence[str], at_once: int) -> None:
        addresses = {name: self.address(name) for name in names}

        def start(name: str) -> None:
            self.engine_start(name)
            self.banner(addresses[name], 22)

        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(start, names))

    def login_all(self, names: Sequence[str]) -> None:
        self._all_end_well([self.host.client.ssh_argv(name, "start") for name in names])

    # The crowd ---------------------------------------------------------------------------------------------

    def crowded(self) -> Lab:
        """A host like this with 10,000 people more, while this one gets ten; made when it is first wanted."""
        if self._crowded is None:
            self._crowded = self.cleanup.enter_context(running_lab())
            self._crowded.gather(MANY)
            self.gather(FEW)
        return self._crowded

    def gather(self, count: int) -> None:
        """So many more people who have an account, a port and a rule, and a daemon that takes them for people."""
        gid = int(self.host.run(["stat", "-c", "%g", "/run/labshell/labshell.sock"]).stdout)
        names = [f"crowd-{number}" for number in range(count)]
        uids = range(200_000, 200_000 + count)
        homes = {"passwd": "x:{uid}:{gid}::/home/{name}:/usr/bin/labshell", "shadow": "*:20000:0:99999:7:::"}
        for file, rest in homes.items():
            lines = [
                f"{name}:{rest.format(uid=uid, gid=gid, name=name)}\n" for name, uid in zip(names, uids, strict=True)
            ]
            self.host.run(["tee", "-a", f"/etc/{file}"], input="".join(lines))
        first = 20_100
        ports = "".join(f"{name} {first + 2 * number}\n" for number, name in enumerate(names))
        self.host.run(
            ["sh", "-c", 'while read -r name port; do echo "$port" > "/public/ports/$name"; done'], input=ports
        )
        self.host.run(["tee", "/public/next-port"], input=f"{first + 2 * count}\n")
        script = Path(__file__).with_name("crowded_daemon.py").read_text()
        self.host.run(["tee", "/usr/local/lib/crowded_daemon.py"], input=script)
        self.host.restart_daemon("/opt/labshell/venv/bin/python -I /usr/local/lib/crowded_daemon.py")
        self.host.admin("reconcile")

    def allocation(self) -> float:
        """Seconds that the registry takes to give a port, having given one before as the daemon has."""
        self.host.run(["tee", "/usr/local/lib/allocation.py"], input=ALLOCATION)
        return float(self.host.run(["/opt/labshell/venv/bin/python", "-I", "/usr/local/lib/allocation.py"]).stdout)

    def daemon_memory(self) -> float:
        """Megabytes of memory that the daemon has to itself."""
        rollup = self.host.read(f"/proc/{self.host.daemon_pid()}/smaps_rollup")
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) / 1000

    def daemon_share(self, seconds: float) -> float:
        """Percent of a processor that the daemon and the programs that it runs take while nobody does anything."""
        before = self._daemon_ticks()
        time.sleep(seconds)
        return (self._daemon_ticks() - before) / seconds

    def _daemon_ticks(self) -> int:
        """Hundredths of a second."""
        fields = self.host.read(f"/proc/{self.host.daemon_pid()}/stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))


@contextlib.contextmanager
def running_lab() -> Iterator[Lab]:
    with running_host() as host:
        host.set_up()
        for line in (
            "reconcile_seconds = 30",
            "ports_per_user = 2",
            "port_range = [20000, 45000]",
            "start_timeout_seconds = 200",
        ):
            name = line.partition(" ")[0]
            host.run(["sed", "-i", f"s/^#*{name} = .*/{line}/", "/etc/labshell/labshell.toml"])
        host.restart_daemon()
        host.build_template()
        for name in ("alice", "bob"):
            host.add_user(name)
        for name, shell in (("truth", "/bin/true"), ("old", "/usr/local/bin/old-shell")):
            add_plain_account(host, host.client, name, shell)
        host.run(["tee", "/usr/local/bin/old-shell"], input=OLD_SHELL)
        host.run(["chmod", "755", "/usr/local/bin/old-shell"])
        host.run(["tee", "/etc/sudoers.d/old"], input="old ALL=(ALL) NOPASSWD: ALL\n")
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
        lab = Lab(host)
        for user in ("alice", "truth", "old"):
            lab.ssh(user, "status")
        with lab.cleanup:
            yield lab


def add_plain_account(host: Host, client: Client, name: str, shell: str) -> None:
    """An account of the host's own, with a key in its home."""
    public = Path(client.make_key(name)).with_suffix(".pub").read_text()
    host.run(["useradd", "--create-home", "--password", "*", "--shell", shell, name])
    host.run(["install", "-d", "-m", "700", "-o", name, f"/home/{name}/.ssh"])
    host.run(["tee", f"/home/{name}/.ssh/authorized_keys"], input=public)
