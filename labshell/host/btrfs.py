"""What btrfs counts: how much there is in each subvolume. Asked of the kernel without any right beyond reading.

Names in capitals are those of linux/btrfs.h, without BTRFS_ and IOC_; the numbers are those of its _IOR and _IOWR.
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
FIRST_FREE_OBJECTID = 256  # the inode of every subvolume's root
FS_INFO = 0x8400941F  # _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
GET_SUBVOL_ROOTREF = 0xD000943D  # _IOWR(0x94, 61, struct btrfs_ioctl_get_subvol_rootref_args)
INO_LOOKUP_USER = 0xD000943E  # _IOWR(0x94, 62, struct btrfs_ioctl_ino_lookup_user_args)
FS_INFO_BYTES, GET_SUBVOL_ROOTREF_BYTES, INO_LOOKUP_USER_BYTES = 1024, 4096, 4096  # of these structures
FSID_AT = 16  # fs_info_args.fsid
ROOTREF_AT, NUM_ITEMS_AT = 8, 4088  # get_subvol_rootref_args.rootref and .num_items
ROOTREF = struct.Struct("=QQ")  # treeid of a subvolume, dirid of the folder that it is in
LOOKUP = struct.Struct("=QQ")  # ino_lookup_user_args.dirid and .treeid
NAME_AT = 16  # ino_lookup_user_args.name


def is_subvolume(path: Path) -> bool:
    """Whether what is known to be on btrfs is one, and still there."""
    try:
        return path.stat().st_ino == FIRST_FREE_OBJECTID
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
    answer = bytearray(FS_INFO_BYTES)
    fcntl.ioctl(opened, FS_INFO, answer)
    return str(uuid.UUID(bytes=bytes(answer[FSID_AT : FSID_AT + 16])))


def _children(opened: int) -> Iterator[tuple[int, int]]:
    """The subvolumes right under this one. The kernel tells of 255 at once, and where to go on."""
    answer, is_more = bytearray(GET_SUBVOL_ROOTREF_BYTES), True
    while is_more:
        try:
            fcntl.ioctl(opened, GET_SUBVOL_ROOTREF, answer)
            is_more = False
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
        for number in range(answer[NUM_ITEMS_AT]):
            yield ROOTREF.unpack_from(answer, ROOTREF_AT + number * ROOTREF.size)


def _name(opened: int, child: int, folder: int) -> str:
    answer = bytearray(INO_LOOKUP_USER_BYTES)
    LOOKUP.pack_into(answer, 0, folder, child)
    fcntl.ioctl(opened, INO_LOOKUP_USER, answer)
    return answer[NAME_AT:].partition(b"\0")[0].decode("utf-8", "replace")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
