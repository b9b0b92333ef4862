"""A stock Debian machine in qemu with this tree's last commit on it, and what its tests need beside."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "tests/system"))
from testhost import filling_cache, wheels  # noqa: E402 - the folder is put on the path first

PROGRAM = str(Path(__file__).with_name("machine"))
NAME = "labshell"
STATE = Path(os.environ.get("MACHINE_STATE", "/var/tmp/machine"))
PACKAGES = re.search(r"^packages=\((.*?)\)", (TREE / "scripts/setup-host").read_text(), re.MULTILINE | re.DOTALL)
# The least that a template needs: each file costs time where every instruction is translated.
TEMPLATE = (
    "systemd,systemd-sysv,dbus,udev,libpam-systemd,openssh-server,openssh-sftp-server,iproute2,iputils-ping,ifupdown,"
    "isc-dhcp-client,netbase,sudo,ca-certificates,procps"
)
SSH = (
    "ssh -F none -i /root/.ssh/id_ed25519 -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no "
    "-o UserKnownHostsFile=/dev/null"
)
log = logging.getLogger("machine")


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Log how long the block took."""
    began = time.monotonic()
    try:
        yield
    finally:
        log.info("%4d s  %s", time.monotonic() - began, name)


class Lab:
    """The machine, reached by the script beside this file."""

    def control(self, *arguments: str, timeout: float = 1000) -> str:
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"machine {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, script: str, *, check: bool = True, timeout: float = 600) -> str:
        """Run a script of bash there; what it printed, both streams together."""
        done = subprocess.run(
            [PROGRAM, "ssh", NAME, "bash -euo pipefail -s 2>&1"],
            input=script, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\nstatus {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def ssh(self, user: str, command: str, port: int = 22, *, check: bool = True) -> str:
        return self.run(f"{SSH} -p {port} {user}@localhost {command} </dev/null", check=check)

    def port(self, user: str) -> int:
        return int(self.run(f"cat /public/ports/{user}"))

    def wait_until(self, script: str, seconds: float) -> None:
        """Until the script succeeds there."""
        deadline = time.monotonic() + seconds
        while self.run(f"if {script} >/dev/null 2>&1; then echo yes; fi", timeout=seconds).strip() != "yes":
            assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
            time.sleep(2)


def ensure_image(release: str) -> str:
    """The image with everything that setup-host would install; built at this machine's own speed, and kept."""
    assert PACKAGES is not None
    packages = ",".join([*PACKAGES[1].split(), "lxd", "lxd-client", "lxcfs"])
    image = f"{release}-{hashlib.sha256(packages.encode()).hexdigest()[:8]}"
    if not (STATE / "images" / image / "disk").exists():
        Lab().control("build", release, "--as", image, "--include", packages, timeout=1800)
    return image


def ensure_disk(release: str) -> Path:
    """What goes into the machine, as a tar file: the last commit, wheels, and a root file system for the template."""
    rootfs = STATE / f"rootfs-{release}-{hashlib.sha256(TEMPLATE.encode()).hexdigest()[:8]}.tar"
    hooks = (
        "rm -f $1/etc/ssh/ssh_host_* $1/etc/machine-id $1/var/lib/dbus/machine-id; touch $1/etc/machine-id",
        "printf 'auto lo\\niface lo inet loopback\\n\\nauto eth0\\niface eth0 inet dhcp\\n' > $1/etc/network/interfaces",
        "echo 'send dhcp-client-identifier = hardware;' >> $1/etc/dhcp/dhclient.conf",
    )
    with filling_cache():
        if not rootfs.exists():
            part = rootfs.with_suffix(".part.tar")
            argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={TEMPLATE}"]
            sources = Lab().control("sources", release)
            argv += [*(f"--customize-hook={hook}" for hook in hooks), release, str(part), "-"]
            subprocess.run(argv, input=sources, text=True, check=True, timeout=1800)
            part.rename(rootfs)
    disk = STATE / "labshell-disk.tar"
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        archive = subprocess.run(["git", "-C", str(TREE), "archive", "HEAD"], capture_output=True, check=True).stdout
        subprocess.run(["tar", "x", "-C", str(tree)], input=archive, check=True)
        shutil.copytree(wheels(), Path(folder) / "wheels")
        (Path(folder) / "rootfs.tar").hardlink_to(rootfs)
        subprocess.run(["tar", "cf", str(disk), "-C", folder, "tree", "wheels", "rootfs.tar"], check=True)
    return disk


@contextlib.contextmanager
def running_lab(release: str) -> Iterator[Lab]:
    """A machine of this release with labshell, a template, alice and bob; gone at the end of the block."""
    lab = Lab()
    with step("image and files, outside"):
        image, disk = ensure_image(release), ensure_disk(release)
    if (STATE / "machines" / NAME).exists():
        lab.control("delete", NAME)
    try:
        with step("boot"):
            lab.control("start", NAME, "--image", image, "--disk", str(disk))
        with step("files"):
            lab.run("mkdir /shipped; tar x -C /shipped --no-same-owner </dev/vdb")
        with step("setup-host"):
            lab.run("/shipped/tree/scripts/setup-host --wheels /shipped/wheels </dev/null", timeout=1200)
        lab.run(
            "sed -i 's/^#*start_timeout_seconds = .*/start_timeout_seconds = 300/' /etc/labshell/labshell.toml; "
            "systemctl restart labshelld; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519"
        )
        with step("template"):
            lab.run("labshell-admin template build --rootfs /shipped/rootfs.tar </dev/null", timeout=1200)
        for name in ("alice", "bob"):
            with step(f"add-user {name}"):
                lab.run(f"labshell-admin add-user {name} --key /root/.ssh/id_ed25519.pub </dev/null")
        yield lab
    finally:
        lab.control("delete", NAME)
        disk.unlink()
