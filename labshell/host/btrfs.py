"""What btrfs counts: how much there is in each subvolume. Asked of the kernel without any right beyond reading.

The structures and the numbers of the requests are those of the kernel's linux/btrfs.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

SYSFS = Path("/sys/fs/btrfs")
ROOT_INODE = 256  # of every subvolume
FILE_SYSTEM, CHILDREN, NAME = 0x8400941F, 0xD000943D, 0xD000943E  # FS_INFO, GET_SUBVOL_ROOTREF, INO_LOOKUP_USER
FILE_SYSTEM_BYTES, OTHER_BYTES = 1024, 4096
UUID_AT, COUNT_AT, NAME_AT = 16, 4088, 16
CHILD = struct.Struct("=QQ")  # its id, and the inode of the folder that it is in


def is_subvolume(path: Path) -> bool:
    """Whether what is known to be on btrfs is one, and still there."""
    try:
        return path.stat().st_ino == ROOT_INODE
    except FileNotFoundError:
        return False


def has_lost_count(counts: Path) -> bool:
    """Whether the numbers in this folder of the kernel's are wrong until it has counted again."""
    return any(mark.read_text(encoding="ascii").strip() == "1" for mark in counts.glob("inconsistent"))


def referenced(top: Path, folder: str, only: str | None = None) -> dict[str, int]:
    """By name, the bytes in each subvolume of a folder, with what it shares with others; a limit counts the same.

    `top` is the subvolume that the folder is in; `only` that one of its subvolumes. Empty where nothing is counted
    or it is another file system.
    """
    found: dict[str, int] = {}
    try:
        opened = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        counts = SYSFS / _uuid(opened) / "qgroups"
        parent = os.stat(folder, dir_fd=opened).st_ino
        if has_lost_count(counts):
            return found
        for child in [child for child, inode in _children(opened) if inode == parent]:
            with contextlib.suppress(OSError):  # one that is being deleted
                name = _name(opened, child, parent)
                if only in (None, name):
                    found[name] = _number(counts / f"0_{child}" / "referenced")
    except OSError:
        return {}
    finally:
        os.close(opened)
    return found


def _uuid(opened: int) -> str:
    answer = bytearray(FILE_SYSTEM_BYTES)
    fcntl.ioctl(opened, FILE_SYSTEM, answer)
    return str(uuid.UUID(bytes=bytes(answer[UUID_AT : UUID_AT + 16])))


def _children(opened: int) -> Iterator[tuple[int, int]]:
    """The subvolumes right under this one. The kernel tells of 255 at once, and where to go on."""
    answer, is_more = bytearray(OTHER_BYTES), True
    while is_more:
        try:
            fcntl.ioctl(opened, CHILDREN, answer)
            is_more = False
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
        for number in range(answer[COUNT_AT]):
            yield CHILD.unpack_from(answer, 8 + number * CHILD.size)


def _name(opened: int, child: int, folder: int) -> str:
    answer = bytearray(OTHER_BYTES)
    CHILD.pack_into(answer, 0, folder, child)
    fcntl.ioctl(opened, NAME, answer)
    return answer[NAME_AT:].partition(b"\0")[0].decode("utf-8", "replace")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
