"""The engine's log files of one container, which LXD leaves behind when the container is deleted."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

from labshell.model.names import INSTANCE

log = logging.getLogger(__name__)


def folder_of(engine_socket: Path, name: str) -> Path:
    """/var/log/lxd/NAME for /var/lib/lxd; "logs" beside the socket for any other folder, as a snap has it."""
    folder = engine_socket.parent
    logs = folder.parents[1] / "log" / folder.name if folder.parent.name == "lib" else folder / "logs"
    return logs / name


def remove(engine_socket: Path, name: str) -> None:
    """Make sure that there are no log files of this container. One that cannot be removed is only reported."""
    if not INSTANCE.fullmatch(name):
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder_of(engine_socket, name))
    except OSError as error:
        log.warning("the engine's log stays", extra={"container": name, "why": str(error)})
