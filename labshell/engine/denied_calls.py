"""System calls that no user's container may make, as the engine's configuration has them."""

from __future__ import annotations

from collections.abc import Mapping

KEY = "security.syscalls.deny"
# BTRFS_IOC_SNAP_CREATE, SUBVOL_CREATE, SNAP_CREATE_V2 and SUBVOL_CREATE_V2: a subvolume that is made inside is not
# under the disk limit of the container, which is that of its own subvolume.
MAKE_SUBVOLUME = (0x50009401, 0x5000940E, 0x50009417, 0x50009418)
# The kernel takes the lower 32 bits of a command, a filter sees all 64 that the program gave.
LINES = tuple(f"ioctl errno 1 [1,{command},SCMP_CMP_MASKED_EQ,{0xFFFFFFFF}]" for command in MAKE_SUBVOLUME)


def with_denied_calls(config: Mapping[str, str]) -> str:
    """The value of KEY that denies these, too, beside what the administrator has denied."""
    lines = config.get(KEY, "").splitlines()
    return "\n".join([*lines, *(line for line in LINES if line not in lines)])


def denies_all(config: Mapping[str, str]) -> bool:
    return set(LINES).issubset(config.get(KEY, "").splitlines())
