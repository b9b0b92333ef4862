"""A gateway of its own for the tests, made of namespaces and brought up by the scripts we ship.

The product's real names, paths and ports are used in it, and nothing reaches the machine it runs on: the file
system is overlaid, the network is a namespace, and when process 1 of the host is killed the kernel ends the rest.
Client machines are further network namespaces, joined by veth pairs, in 198.18.0.0/15.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

TREE = Path(__file__).resolve().parents[2]
DAEMON = "/opt/labshell/venv/bin/labshelld"
CONFIG = "/etc/labshell/labshell.toml"
POOL = "/var/lib/lxd/storage-pools/default"
CACHE = Path("/var/cache/labshell-test")
LIMITS_BEFORE = CACHE / "kernel-limits-before"
MOUNT_POINTS = ("/public", "/var/lib/lxd", "/var/lib/lxcfs", "/var/lib/labshell", "/var/cache/lxd")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "xterm",
}
# The test host dies with pytest, however pytest ends.
WITH_US = ["setpriv", "--pdeathsig", "KILL"]

Completed = subprocess.CompletedProcess[str]


class CommandFailed(AssertionError):
    """A command ended with another status than 0; says everything about it."""


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Until `condition` is true, looking ten times a second."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.1)


def exit_status(process: subprocess.Popen[Any], seconds: float) -> int:
    """What process.wait(seconds) says, at the moment the process ends: that one looks every 50 ms, which bench would see."""
    descriptor = os.pidfd_open(process.pid)
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired(process.args, seconds)
    finally:
        os.close(descriptor)
    return process.wait()


def run(
    argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = 60, **options: object
) -> Completed:
    """Run a command to its end. What it leaves running in the background is not waited for."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
        given.write((input or "").encode())
        given.seek(0)
        process = subprocess.Popen(argv, stdin=given, stdout=output, stderr=errors, **options)  # type: ignore[call-overload]
        try:
            status = exit_status(process, timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        done = Completed(
            list(argv), status, output.read().decode(errors="replace"), errors.read().decode(errors="replace")
        )
    if check and status != 0:
        raise CommandFailed(f"{' '.join(argv)}: status {status}\nstdout: {done.stdout}\nstderr: {done.stderr}")
    return done


class Machine:
    """What is reached by another command line in front."""

    def argv(self, command: Sequence[str]) -> list[str]:
        raise NotImplementedError

    def popen(self, argv: Sequence[str], **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(self.argv(argv), text=True, env=ENVIRONMENT, **options)  # type: ignore[call-overload, no-any-return]

    @contextlib.contextmanager
    def background(self, argv: Sequence[str], **options: object) -> Iterator[subprocess.Popen[str]]:
        """A command that runs for the length of the block and is killed at its end, whatever happened."""
        process = self.popen(argv, start_new_session=True, **options)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):  # nsenter's child, too, which does not end with it
                os.killpg(process.pid, signal.SIGKILL)
            _finish(process)


@dataclass
class Client(Machine):
    """Another machine: a network namespace with the real OpenSSH client, its keys and its known hosts."""

    pid: int
    address: str
    gateway: str
    folder: Path

    def argv(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "--", *command]

    def run(self, argv: Sequence[str], **options: object) -> Completed:
        return run(self.argv(argv), **options)  # type: ignore[arg-type]

    def make_key(self, name: str) -> Path:
        """The private key of this name; made if there is none."""
        path = self.folder / name
        if not path.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@client", "-f", str(path)])
        return path

    def ssh_argv(
        self,
        user: str,
        *command: str,
        port: int = 22,
        key: Path | None = None,
        tty: bool = False,
        options: Sequence[str] = (),
    ) -> list[str]:
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key or self.folder / user),
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
        }
        argv = ["ssh", "-F", "none", "-p", str(port), "-tt" if tty else "-T", *options]
        for name, value in settings.items():
            argv += ["-o", f"{name}={value}"]
        return [*argv, f"{user}@{self.gateway}", *command]

    def ssh(
        self,
        user: str,
        *command: str,
        port: int = 22,
        key: Path | None = None,
        tty: bool = False,
        options: Sequence[str] = (),
        check: bool = False,
        input: str | None = None,
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> Completed:
        """ssh to the gateway as `user`, with the key of that name unless told otherwise."""
        argv = self.ssh_argv(user, *command, port=port, key=key, tty=tty, options=options)
        return self.run(argv, check=check, input=input, timeout=timeout, env=ENVIRONMENT | (env or {}))


@dataclass
class Host(Machine):
    """The gateway under test. `client` is somebody's laptop, `other` another server of the campus."""

    pid: int
    state: Path
    client: Client = field(init=False)
    other: Client = field(init=False)

    def argv(self, command: Sequence[str], *, outside_network: bool = False) -> list[str]:
        namespaces = ["-m", "-u", "-i", "-p", *([] if outside_network else ["-n"])]
        return ["nsenter", "-t", str(self.pid), *namespaces, "--wd=/", "--", *command]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60,
        outside_network: bool = False,
        env: dict[str, str] | None = None,
    ) -> Completed:
        """Run a command on the gateway as root; with `outside_network`, where packages can be downloaded."""
        command = self.argv(argv, outside_network=outside_network)
        return run(command, check=check, input=input, timeout=timeout, env=ENVIRONMENT | (env or {}))

    def read(self, path: str | Path) -> str:
        return self.run(["cat", str(path)]).stdout

    def exists(self, path: str | Path) -> bool:
        return self.run(["test", "-e", str(path)], check=False).returncode == 0

    def script(self, name: str, *arguments: str, check: bool = True, timeout: float = 300) -> Completed:
        return self.run([str(TREE / "scripts" / name), *arguments], check=check, timeout=timeout)

    def set_up(self) -> Completed:
        """Install labshell as it is shipped, but for a daemon that looks at the rules more often: tests wait for it."""
        self.script("setup-host", "--wheels", str(wheels()))
        self.run(["sed", "-i", "s/^#reconcile_seconds = .*/reconcile_seconds = 3/", "/etc/labshell/labshell.toml"])
        return self.script("setup-host", "--wheels", str(wheels()))

    def steps(self, script: str, *, check: bool = True, timeout: float = 60) -> Completed:
        """A few lines of bash with the functions of scripts/steps.bash, on the gateway."""
        sourced = f". {TREE}/scripts/steps.bash; {script}"
        return self.run(["bash", "-euo", "pipefail", "-c", sourced], check=check, timeout=timeout)

    def admin(self, *arguments: str, check: bool = True, timeout: float = 120) -> Completed:
        return self.run(["labshell-admin", *arguments], check=check, timeout=timeout)

    def add_user(self, name: str, *arguments: str) -> Path:
        """Make a key pair on the client and a user who has it; the private key."""
        key = self.client.make_key(name)
        self.admin("add-user", name, "--key", str(key.with_suffix(".pub")), *arguments)
        return key

    def remove_user(self, name: str) -> None:
        self.admin("remove-user", name, "--yes", "--no-archive")

    def ssh_port(self, name: str) -> int:
        return int(self.read(f"/public/ports/{name}"))

    def build_template(self) -> None:
        """The template, if there is none; its root file system is downloaded once and kept for other runs."""
        if self.run(["lxc", "info", "template"], check=False).returncode != 0:
            rootfs = CACHE / f"rootfs-{recipe()}.tar"
            with filling_cache():
                if not rootfs.exists():
                    self._build_rootfs(rootfs)
            self.admin("template", "build", "--rootfs", str(rootfs), timeout=300)

    def _build_rootfs(self, rootfs: Path) -> None:
        part = rootfs.with_suffix(".part.tar")
        build = (
            "from pathlib import Path; from labshell.engine import recipes, templates; "
            f"templates.build_rootfs(Path('{part}'), recipes.Recipe(minimal=True))"
        )
        self.run(["/opt/labshell/venv/bin/python", "-Ic", build], outside_network=True, timeout=600)
        part.rename(rootfs)
        for older in sorted(CACHE.glob("rootfs-*.tar"), key=lambda path: path.stat().st_mtime)[:-2]:
            older.unlink()

    def daemon_pid(self) -> int:
        """The daemon's pid, as the gateway sees it."""
        return int(self.read("/run/labshell/labshelld.pid"))

    def stop_daemon(self, name: str = "TERM") -> None:
        pid = str(self.daemon_pid())
        self.run(["kill", f"-{name}", pid], check=False)
        wait_until(lambda: self.run(["test", "-d", f"/proc/{pid}"], check=False).returncode != 0, 10)

    def start_daemon(self, command: str = DAEMON) -> None:
        self.steps(f"start_by_hand labshelld {command}")
        wait_until(lambda: self.admin("list", check=False).returncode == 0, 20)

    def restart_daemon(self, command: str = DAEMON) -> None:
        self.stop_daemon()
        self.start_daemon(command)

    @contextlib.contextmanager
    def configured(self, lines: str, command: str = DAEMON) -> Iterator[None]:
        """With more lines in labshell.toml while the block runs."""
        before = self.read(CONFIG)
        self.run(["tee", CONFIG], input=f"{before}\n{lines}\n")
        try:
            self.restart_daemon(command)
            yield
        finally:
            self.run(["tee", CONFIG], input=before)
            self.restart_daemon()

    def recount_disks(self) -> None:
        """Put the disk limits in force again if the kernel has stopped to count; nothing if none was ever set."""
        self.run(["btrfs", "quota", "rescan", "-w", POOL], check=False)


@contextlib.contextmanager
def running_host() -> Iterator[Host]:
    """An empty gateway with its two client machines; gone at the end of the block, whatever happens."""
    with contextlib.ExitStack() as cleanup:
        state = Path(tempfile.mkdtemp(prefix="labshell-test-", dir="/var/tmp"))
        cleanup.callback(_remove_tree, state)
        _ensure_mount_points(cleanup)
        init = [str(Path(__file__).with_name("testhost-init")), str(state)]
        process = _start(
            ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", *init], cleanup
        )
        assert process.stdout is not None
        word, _, pid = process.stdout.readline().partition(" ")
        assert word == "ready", f"the test host did not start: {word}{pid}"
        host = Host(int(pid), state)
        cleanup.callback(_end, int(pid))
        host.client = join_client(host, "laptop", "198.18.0", cleanup)
        host.other = join_client(host, "server", "198.18.1", cleanup)
        yield host


@contextlib.contextmanager
def filling_cache() -> Iterator[None]:
    """While the block runs, no other test run looks whether something is in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "filling").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def recipe() -> str:
    """What a root file system is made by, as a name for the cache."""
    made_by = [(TREE / "labshell/engine" / name).read_bytes() for name in ("recipes.py", "templates.py")]
    return hashlib.sha256(b"".join(made_by)).hexdigest()[:16]


def wheels() -> Path:
    """A folder with everything that an installation needs, fetched once."""
    with filling_cache():
        return _wheels()


def _wheels() -> Path:
    folder = CACHE / "wheels"
    wanted = (TREE / "etc/requirements.lock").read_text() + (TREE / "etc/requirements-build.lock").read_text()
    mark = folder / "complete"
    if mark.exists() and mark.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build = folder / "venv"
    run(["/usr/bin/python3", "-m", "venv", str(build)])
    pip = [str(build / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    tools, packages = (str(TREE / "etc" / f"{name}.lock") for name in ("requirements-build", "requirements"))
    run([*pip, "install", "--requirement", tools], timeout=300)
    run([*pip, "wheel", "--wheel-dir", str(folder), "--requirement", tools], timeout=300)
    run([*pip, "wheel", "--no-build-isolation", "--wheel-dir", str(folder), "--requirement", packages], timeout=300)
    shutil.rmtree(build)
    mark.write_text(wanted)
    return folder


def _start(argv: list[str], cleanup: contextlib.ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*WITH_US, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    cleanup.callback(_finish, process)
    return process


def _finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _end(pid: int) -> None:
    """Kill process 1 of a test host and wait until the kernel has ended everything in it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), 30)


def _is_zombie(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def join_client(host: Host, name: str, network: str, cleanup: contextlib.ExitStack) -> Client:
    """A machine in a network of its own with the gateway, whose address there ends in 1."""
    process = _start(["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep infinity"], cleanup)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    folder = host.state / name
    folder.mkdir(mode=0o700, exist_ok=True)  # of an earlier machine of that name
    client = Client(process.pid, f"{network}.2", f"{network}.1", folder)
    client.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"to-{name}", "netns", str(host.pid)])
    client.run(["ip", "address", "add", f"{network}.2/24", "dev", "eth0"])
    client.run(["ip", "link", "set", "eth0", "up"])
    client.run(["ip", "route", "add", "default", "via", f"{network}.1"])
    host.run(["ip", "address", "add", f"{network}.1/24", "dev", f"to-{name}"])
    host.run(["ip", "link", "set", f"to-{name}", "up"])
    return client


def _ensure_mount_points(cleanup: contextlib.ExitStack) -> None:
    """Folders that the machine may not have, gone again with the last test host: removing one ends every mount on it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    mark = cleanup.enter_context((CACHE / "in-use").open("w"))
    fcntl.flock(mark, fcntl.LOCK_SH)
    made = [path for path in map(Path, MOUNT_POINTS) if not path.exists()]
    for path in made:
        path.mkdir(parents=True, exist_ok=True)  # another worker may have been quicker
    if not LIMITS_BEFORE.exists():
        LIMITS_BEFORE.write_text("".join(f"{path} {path.read_text()}" for path in _kernel_limits()))
    cleanup.callback(_remove_unused, mark, made)


def _remove_unused(mark: IO[str], folders: list[Path]) -> None:
    """What the last test host leaves as it was: the kernel's limits are the whole machine's."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        for line in LIMITS_BEFORE.read_text().splitlines():
            path, _, value = line.partition(" ")
            if Path(path).read_text().strip() != value:  # a kernel may refuse even root some of them
                Path(path).write_text(value)
        LIMITS_BEFORE.unlink()


def _kernel_limits() -> list[Path]:
    """The settings that setup-host raises."""
    lines = (TREE / "etc/sysctl.d/60-labshell.conf").read_text().splitlines()
    names = [line.partition(" = ")[0].removeprefix("-") for line in lines if line and not line.startswith("#")]
    return [Path("/proc/sys") / name.replace(".", "/") for name in names]


def _remove_tree(path: Path) -> None:
    """Remove what the test host wrote; its last mounts may take a moment to go."""
    wait_until(lambda: shutil.rmtree(path, ignore_errors=True) or not path.exists(), 20)
