"""Building a template: a small Debian from the machine's own package sources, ready for a first SSH login.

Runs in the administrator's own command, not in the daemon: mmdebstrap needs more power than the daemon has.
"""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labshell.containers import TEMPLATE, Containers
from labshell.engine import COPY_SECONDS, Engine, asking
from labshell.errors import LabshellError, UsageError

BUILD_SECONDS = 1800
SOURCES = Path("/etc/apt")
PACKAGES = (
    "systemd systemd-sysv dbus udev libpam-systemd openssh-server openssh-sftp-server iproute2 iputils-ping ifupdown "
    "isc-dhcp-client netbase sudo ca-certificates locales-all less nano rsync procps bash-completion"
)
# ifupdown and not systemd-networkd, which waits for udev events that containers do not get.
INTERFACES = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n"


def build(engine: Engine, containers: Containers, name: str, rootfs: Path | None) -> Iterator[str]:
    """Make the stopped container `name` from a new root file system, or from the tar file `rootfs`.

    Yields what is being done, for the person who waits.
    """
    if containers.get(name) is not None:
        raise UsageError("There is a container {name} already; delete it first: lxc delete {name}", name=name)
    with tempfile.TemporaryDirectory(prefix="labshell-template-") as folder:
        if rootfs is None:
            rootfs = Path(folder) / "rootfs.tar"
            yield "Building a Debian root file system"
            build_rootfs(rootfs)
        elif not rootfs.is_file():
            raise UsageError("{path} is not a file.", path=rootfs)
        yield "Importing it as a template"
        metadata = Path(folder) / "metadata.tar"
        _write_metadata(metadata)
        _import(engine, name, metadata, rootfs)


def build_rootfs(target: Path) -> None:
    """Write a root file system with sshd, sudo and DHCP as the tar file `target`. It has no host keys."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt_sources(SOURCES, release)
    if not sources:
        raise LabshellError(
            "This machine has no apt sources of its own release; give a root file system with --rootfs."
        )
    hooks = [
        "rm -f $1/etc/ssh/ssh_host_* $1/etc/machine-id $1/var/lib/dbus/machine-id",
        "touch $1/etc/machine-id",
        f"printf '{INTERFACES.encode('unicode_escape').decode()}' > $1/etc/network/interfaces",
    ]
    argv = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES.replace(' ', ',')}"]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    argv += [release, str(target), *map(str, sources)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabshellError("mmdebstrap could not be run: {why}.", why=error) from error
    if done.returncode != 0:
        raise LabshellError("mmdebstrap failed:\n{output}", output=done.stderr[-2000:])


def apt_sources(folder: Path, release: str) -> list[Path]:
    """The files below `folder` (/etc/apt) with the distribution's own packages for `release`: component main."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    found = []
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            lines = [
                line for line in file.read_text(errors="replace").splitlines() if not line.lstrip().startswith("#")
            ]
            words = set(" ".join(lines).split())
            if release and release in words and "main" in words:
                found.append(file)
    return found


def _import(engine: Engine, name: str, metadata: Path, rootfs: Path) -> None:
    """A stopped container, marked as a template, from two tar files as the engine's image format has them."""
    with asking(name, "be made"), metadata.open("rb") as first, rootfs.open("rb") as second:
        parts = {
            "metadata": ("metadata.tar", first, "application/octet-stream"),
            "rootfs": ("rootfs.tar", second, "application/octet-stream"),
        }
        image = engine.new_client(COPY_SECONDS).api.images.post(files=parts)
        fingerprint = engine.wait(image, COPY_SECONDS)["fingerprint"]
        try:
            request = {
                "name": name,
                "source": {"type": "image", "fingerprint": fingerprint},
                "config": {TEMPLATE: "true"},
            }
            engine.wait(engine.api.instances.post(json=request), COPY_SECONDS)
        finally:
            engine.wait(engine.api.images[fingerprint].delete(), COPY_SECONDS)


def _write_metadata(target: Path) -> None:
    """The image's metadata.yaml. It names no templates: those would be filled in by the engine on the host."""
    text = (
        f"architecture: {platform.machine()}\n"
        f"creation_date: {int(time.time())}\n"
        "properties: {description: labshell template}\n"
    ).encode()
    with tarfile.open(target, "w") as archive:
        member = tarfile.TarInfo("metadata.yaml")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
