"""Files that only root writes: atomic replacement, careful reading, locks that time out.

Root never follows a planted link, never waits on a FIFO, and a crash at any moment leaves the
old content or the new, never half of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import filelock

from labshell.errors import LabshellError, TryAgain

LOCK_SECONDS = 30
LOCK_POLL_SECONDS = 0.05
LARGEST_BYTES = 1 << 20


def read(path: Path) -> bytes | None:
    """The content of a regular file of root's; None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabshellError(
            "file-not-regular", "{path} cannot be read: it must be a regular file.", path=path
        ) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_uid != os.geteuid():
            raise LabshellError(
                "file-not-trusted",
                "{path} must be a regular file owned by root, with one hard link.",
                path=path,
            )
        if about.st_size > LARGEST_BYTES:
            raise LabshellError("file-too-large", "{path} is too large to be what it should be.", path=path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Make `path` hold `content`: written beside it, synced, renamed over it, folder synced."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise LabshellError(
            "file-not-written", "{path} cannot be written: {why}.", path=path, why=error.strerror
        ) from error


def remove(path: Path) -> None:
    """Make sure that there is no `path`."""
    if not os.path.lexists(path):
        return  # also where the file system is read-only, which refuses to remove even what is not there
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise LabshellError(
            "file-not-removed", "{path} cannot be removed: {why}.", path=path, why=error.strerror
        ) from error


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_folder(path: Path, mode: int = 0o755) -> None:
    """Make `path` a directory that only root can write to, or say why it is not one."""
    try:
        path.mkdir(mode=mode, parents=True)
        path.chmod(mode)
    except FileExistsError:
        pass
    except OSError as error:
        raise LabshellError(
            "folder-not-made", "{path} cannot be made: {why}.", path=path, why=error.strerror
        ) from error
    if not is_ours_alone(path):
        raise LabshellError(
            "folder-not-trusted",
            "{path} must be a directory owned by root that only root can write to.",
            path=path,
        )


def is_ours_alone(path: Path) -> bool:
    """Whether `path` is a directory that only root can write to."""
    try:
        about = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (0600, in a folder of root's), waiting LOCK_SECONDS at most."""
    lock = filelock.FileLock(path, LOCK_SECONDS, 0o600, poll_interval=LOCK_POLL_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise TryAgain("host-file-locked", "Another command is changing this; try again in a moment.") from error
    except OSError as error:
        raise LabshellError(
            "file-not-locked", "{path} cannot be locked: {why}.", path=path, why=error.strerror
        ) from error
    try:
        yield
    finally:
        lock.release()
