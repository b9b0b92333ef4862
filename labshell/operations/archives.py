"""Archives of containers: the engine's own backup in one file, with what labshell needs to restore the user."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import re
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from labshell import shown
from labshell.engine.containers import Containers
from labshell.errors import LabshellError, UsageError
from labshell.host import files, machine

log = logging.getLogger(__name__)
INDEX = "backup/index.yaml"
LARGEST_INDEX = 1 << 20
SHARED_BYTES = 1 << 30  # what a clone shares with its template, where the engine counts only its own
NAME_IN_INDEX = re.compile(r"^name: ([a-z0-9-]{2,63})$", re.MULTILINE)


class Archives:
    """The archives of one host."""

    def __init__(self, containers: Containers, folder: Path) -> None:
        self._containers = containers
        self._folder = folder

    def path_for(self, name: str, moment: str) -> Path:
        return self._folder / f"{name}-{moment}.tar.gz"

    def refuse_without_room(self, names: Collection[str]) -> None:
        """Refuse what may fill a disk of the host: the engine makes an archive, and it is copied from there.

        Where the engine does not say how much is in a container, nothing is known beforehand.
        """
        found = [container for name in names if (container := self._containers.get(name))]
        used = sum(self._containers.usage(container).disk or 0 for container in found)
        if not used:
            return
        needed = used + len(names) * SHARED_BYTES
        disks = {folder: machine.disk_of(folder) for folder in (self._folder, self._containers.backups.folder)}
        if len({disk and disk.device for disk in disks.values()}) == 1:
            needed *= 2
        for folder, disk in disks.items():
            if disk is not None and disk.free_bytes < needed:
                raise LabshellError(
                    "archive-space-missing",
                    "The archive may need {needed} in {folder}, which has {free} left: make room, or see archive in "
                    "labshell.toml, or say --no-archive. Nothing was changed.",
                    needed=shown.size(needed),
                    folder=folder,
                    free=shown.size(disk.free_bytes),
                )

    def write(self, name: str, path: Path, about: dict[str, Any]) -> None:
        """Write the archive and read it back to its end before anybody deletes anything.

        `about` is kept inside, for about(): {"keys": [authorized_keys lines], "port": number or None,
        "host_keys": {file name: content}}.
        """
        files.ensure_folder(path.parent, 0o700)
        beside = path.with_name(f".{path.name}")
        try:
            self._containers.marks.set_archived(name, json.dumps(about))
            self._containers.backups.export(name, beside)
            with gzip.open(beside) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                found = {member.name.split("/")[1] for member in archive if "/" in member.name}
                while stream.read(1 << 20):  # to the very end, where the checksum is
                    pass
            if not found >= {"index.yaml", "container"}:
                raise LabshellError(
                    "archive-incomplete", "The archive of {name} is not complete; nothing was deleted.", name=name
                )
            beside.rename(path)
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise LabshellError(
                "archive-not-verified",
                "The archive of {name} could not be written and read back; nothing was deleted.",
                name=name,
            ) from error
        finally:
            beside.unlink(missing_ok=True)
            with contextlib.suppress(LabshellError):  # there are private keys in it
                self._containers.marks.set_archived(name, "")
        log.info("archived", extra={"user": name, "path": str(path)})

    def user_in(self, path: Path) -> str:
        """Whose archive this is; UsageError if it is none."""
        try:
            with tarfile.open(path, "r:gz") as archive:
                member = archive.next()
                while member is not None and member.name != INDEX:
                    member = archive.next()
                index = archive.extractfile(member) if member is not None and member.isfile() else None
                text = index.read(LARGEST_INDEX).decode("utf-8", "replace") if index is not None else ""
        except (FileNotFoundError, PermissionError):  # the daemon has a /tmp of its own, and not all of root's rights
            raise UsageError(
                "archive-missing",
                "There is no file {path} that the daemon can read: put it into {folder}, as root's.",
                path=path,
                folder=self._folder,
            ) from None
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise UsageError(
                "archive-damaged", "{path} is not an archive of a container, or it is damaged.", path=path
            ) from error
        found = NAME_IN_INDEX.search(text)
        if not found:
            raise UsageError("archive-of-no-container", "{path} is not an archive of a container.", path=path)
        return found.group(1).partition("--")[0]  # of one that was kept from before a rebuild: its owner

    def about(self, name: str) -> dict[str, Any]:
        """What was kept in the archive from which the container was made."""
        try:
            return dict(json.loads(self._containers.marks.archived(name)))
        except (ValueError, TypeError):
            return {}
