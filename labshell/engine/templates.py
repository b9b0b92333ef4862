"""Templates: built as a small Debian from the machine's own package sources, or made of a user's container.

Runs in the administrator's own command, not in the daemon: mmdebstrap needs more power than the daemon has.
"""

from __future__ import annotations

import contextlib
import io
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from labshell.engine.client import Engine
from labshell.engine.containers import Containers
from labshell.engine.errors import translate_errors
from labshell.engine.recipes import APT, DHCP_CLIENT, EXTRAS, INTERFACES, LANGUAGES, LOCALE, USUAL, Recipe
from labshell.engine.records import TEMPLATE
from labshell.errors import LabshellError, UsageError
from labshell.host.clock import Clock
from labshell.model.names import name_of_fresh

BUILD_SECONDS = 1800
BUILD_BYTES = 1 << 30
START_SECONDS = 60
_WHEN_ONLINE = "for _ in $(seq 100); do ip route | grep -q ^default && break; sleep 0.1; done; "
SOURCES = Path("/etc/apt")
# What makes a machine or a person recognisable, by folder: names that begin with one of these go away.
PERSONAL = {
    "/etc/ssh": ("ssh_host_",),
    "/etc/sudoers.d": ("90-labshell",),
    "/var/lib/dhcp": ("",),
    "/var/lib/dbus": ("machine-id",),
    "/var/lib/systemd": ("random-seed",),
    "/root": (".bash_history", ".python_history", ".lesshst", ".viminfo", ".labshell-password"),
    "/root/.ssh": ("",),
}
PERSONAL_IN_HOME = (".bash_history", ".zsh_history", ".python_history", ".lesshst", ".viminfo", ".Xauthority")


def build(
    engine: Engine, containers: Containers, name: str, rootfs: Path | None, recipe: Recipe = USUAL
) -> Iterator[str]:
    """Make the stopped container `name` from a new root file system, or from the tar file `rootfs`.

    Yields what is being done, for the caller who waits.
    """
    if containers.get(name) is not None:
        raise UsageError(
            "template-name-taken",
            "There is a container {name} already; choose another name, or delete that first.",
            name=name,
        )
    if rootfs is None:
        checked_sources(recipe)
    elif not rootfs.is_file():
        raise UsageError("rootfs-not-a-file", "{path} is not a file.", path=rootfs)
    with tempfile.TemporaryDirectory(prefix="labshell-template-") as folder:
        if rootfs is None:
            rootfs = Path(folder) / "rootfs.tar"
            yield "Building a Debian root file system"
            build_rootfs(rootfs, recipe)
        yield "Importing it as a template"
        metadata = Path(folder) / "metadata.tar"
        _write_metadata(metadata)
        _import(engine, name, metadata, rootfs)


def publish(containers: Containers, source: str, name: str) -> Iterator[str]:
    """Make the template `name` of a container, running or stopped, which stays as it is.

    What is personal is taken out of the copy: host keys, machine id, everybody's SSH keys, leases, histories,
    proxy devices, marks of labshell's. Other files in people's homes stay; the last line says whose.
    """
    if containers.get(name) is not None:
        raise UsageError(
            "template-name-taken",
            "There is a container {name} already; choose another name, or delete that first.",
            name=name,
        )
    if containers.get(source) is None:
        raise UsageError("container-missing", "There is no container {name}.", name=source)
    made = name_of_fresh(name)  # until nothing personal is in it any more
    yield f"Copying {source}"
    containers.lifecycle.delete(made)
    try:
        containers.clones.copy_for_template(source, made)
        yield "Taking out what is personal"
        homes = _strip(containers, made)
        containers.lifecycle.rename(made, name)
        made = name
        containers.marks.set_template(made)
    except BaseException:
        with contextlib.suppress(LabshellError):
            containers.lifecycle.delete(made)
        raise
    if homes:
        yield f"Look at it before you use it: it has the home folders of {', '.join(homes)}"


def _strip(containers: Containers, name: str) -> list[str]:
    """Take what is personal out of a stopped copy, through the engine; whose home folders it has."""
    homes = containers.inside.list_folder(name, "/home")
    personal = dict(PERSONAL)
    for home in homes:
        personal[f"/home/{home}"] = PERSONAL_IN_HOME
        personal[f"/home/{home}/.ssh"] = ("",)
    for folder, beginnings in personal.items():
        for entry in containers.inside.list_folder(name, folder):
            if entry.startswith(beginnings):
                _delete(containers, name, f"{folder}/{entry}")
    containers.inside.put_file(name, "/etc/machine-id", b"", 0o444)
    containers.inside.put_file(name, "/etc/hostname", b"template\n")
    return homes


def _delete(containers: Containers, name: str, path: str) -> None:
    """Delete a file, or a folder with what is in it."""
    left, found = [path], []
    while left:
        found.append(left.pop())
        left += [f"{found[-1]}/{entry}" for entry in containers.inside.list_folder(name, found[-1])]
    for one in reversed(found):
        containers.inside.delete_file(name, one)


def update(containers: Containers, name: str, command: str) -> Iterator[str]:
    """Start a template, run `command` in it as root, strip it and stop it again. Clones of it do not change."""
    containers.clones.check_template(name)
    if containers.get(name) is None:
        raise UsageError("template-is-image", "{name} is an image; only a container can be updated.", name=name)
    yield f"Starting {name}"
    containers.lifecycle.start(name, START_SECONDS)
    try:
        yield f"Running: {command}"
        status, output = containers.inside.run(
            name, ["/bin/sh", "-c", _WHEN_ONLINE + command], BUILD_SECONDS, BUILD_BYTES
        )
    finally:
        containers.lifecycle.stop(name, START_SECONDS, force=True)
        _strip(containers, name)
    if status != 0:
        raise LabshellError(
            "template-command-failed",
            "The command ended with status {status}:\n{output}",
            status=status,
            output=output[-2000:],
        )


def listing(containers: Containers, configured: str) -> list[dict[str, object]]:
    """Every template: its name, state, and whether it is the one that new containers are cloned from."""
    found = [item for item in containers.all() if item.is_template or item.name == configured]
    return [
        {"template": item.name, "state": item.state.lower(), "used": "by default" if item.name == configured else ""}
        for item in sorted(found, key=lambda item: item.name)
    ]


def build_rootfs(target: Path, recipe: Recipe = USUAL) -> None:
    """Write the root file system of a recipe as the tar file `target`. It has no host keys."""
    argv = mmdebstrap(target, recipe, *checked_sources(recipe))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabshellError("mmdebstrap-not-run", "mmdebstrap could not be run: {why}.", why=error) from error
    if done.returncode != 0:
        raise LabshellError("mmdebstrap-failed", "mmdebstrap failed:\n{output}", output=done.stderr[-2000:])


def mmdebstrap(target: Path, recipe: Recipe, release: str, sources: list[Path]) -> list[str]:
    """The command line that makes a root file system."""
    hooks = [
        "rm -f $1/etc/ssh/ssh_host_* $1/etc/machine-id $1/var/lib/dbus/machine-id",
        "touch $1/etc/machine-id",
        f"printf '{_escaped(INTERFACES)}' > $1/etc/network/interfaces",
        f"printf '{_escaped(DHCP_CLIENT)}' >> $1/etc/dhcp/dhclient.conf",
        f"printf '{_escaped(LOCALE)}' > $1/etc/profile.d/labshell-locale.sh",
        "ln -sf /dev/null $1/etc/systemd/system/systemd-binfmt.service",  # fails in a container
    ]
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
    if not recipe.minimal:
        argv.append("--skip=cleanup/apt/lists")
        argv.append(f"--setup-hook=printf '{_escaped(APT)}' > $1/etc/apt/apt.conf.d/60labshell")
        generated = "".join(f"{language}.UTF-8 UTF-8\n" for language in LANGUAGES.split())
        hooks += [f"printf '{_escaped(generated)}' > $1/etc/locale.gen", 'chroot "$1" locale-gen']
    argv += [f"--customize-hook={hook}" for hook in hooks]
    return [*argv, release, str(target), *map(str, sources)]


def _escaped(text: str) -> str:
    """Text for printf on one line of a shell."""
    return text.encode("unicode_escape").decode()


def checked_sources(recipe: Recipe) -> tuple[str, list[Path]]:
    """The Debian release of a recipe, and where its packages come from."""
    unknown = [extra for extra in recipe.extras if extra not in EXTRAS]
    if unknown:
        raise UsageError(
            "template-extra-unknown",
            "There is nothing to add called {name}; there is: {known}",
            name=unknown[0],
            known=", ".join(EXTRAS),
        )
    release = recipe.release or platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt_sources(SOURCES, release)
    if not sources:
        raise LabshellError(
            "apt-sources-missing",
            "This machine has no apt sources of the release {release}; give a root file system with --rootfs.",
            release=release,
        )
    return release, sources


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
    with translate_errors(name, "be made"), metadata.open("rb") as first, rootfs.open("rb") as second:
        parts = {
            "metadata": ("metadata.tar", first, "application/octet-stream"),
            "rootfs": ("rootfs.tar", second, "application/octet-stream"),
        }
        fingerprint = engine.upload("images", parts=parts)["fingerprint"]
        try:
            request = {
                "name": name,
                "source": {"type": "image", "fingerprint": fingerprint},
                "config": {TEMPLATE: "true"},
            }
            engine.post("instances", body=request)
        finally:
            engine.delete("images", fingerprint)


def _write_metadata(target: Path) -> None:
    """The image's metadata.yaml. It names no templates: those would be filled in by the engine on the host."""
    text = (
        f"architecture: {platform.machine()}\n"
        f"creation_date: {int(Clock().seconds())}\n"
        "properties: {description: labshell template}\n"
    ).encode()
    with tarfile.open(target, "w") as archive:
        member = tarfile.TarInfo("metadata.yaml")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
