"""The researchers' accounts on the host: a name, a uid that is never used twice, a home that no user can write to.

An account here grants one access, labshell. It has no password, no group but labshell, an empty home of root's
(a home its user could write to would run code on the host), and its keys lie where only root can change them.
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import logging
import os
import pwd
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from labshell import shown
from labshell.config import GROUP, Paths
from labshell.errors import LabshellError, UsageError
from labshell.host import files, host_program
from labshell.host.uids import Uids
from labshell.model import keys
from labshell.model.keys import PublicKey
from labshell.places import LOGIN_SHELL

log = logging.getLogger(__name__)
END_SECONDS = 10
LOCKED_SINCE = datetime.date(1970, 1, 1)  # what last_day() says of the day 1 that lock() sets


@dataclass(frozen=True)
class Door:
    """What one researcher's account opens on this host."""

    user: str
    groups: frozenset[str]
    shell: str
    home: str
    is_home_safe: bool


class Accounts:
    """The Unix accounts of group labshell and their keys."""

    def __init__(self, paths: Paths, uid_range: tuple[int, int]) -> None:
        self._paths = paths
        self._uids = Uids(paths, uid_range)

    def uid_of(self, user: str) -> int | None:
        """The uid of a researcher's account; None if there is none. UsageError for anybody else's account."""
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            return None
        if entry.pw_gid != _group_id():
            raise UsageError(
                "account-is-system", "{user} is an existing system account; choose another name.", user=user
            )
        return entry.pw_uid

    def all(self) -> dict[str, int]:
        """Every researcher's name and uid."""
        group = _group_id()
        return {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group}

    def doors(self) -> list[Door]:
        """What each researcher's account opens on this host."""
        return [self.door(user) for user in self.all()]

    def door(self, user: str) -> Door:
        """What one researcher's account opens on this host."""
        entry = pwd.getpwnam(user)
        is_safe = files.is_ours_alone(Path(entry.pw_dir))
        return Door(user, group_names(user, entry.pw_gid), entry.pw_shell, entry.pw_dir, is_safe)

    def last_day(self, user: str) -> datetime.date | None:
        """The last day on which this user may log in, as the system has it."""
        for line in Path("/etc/shadow").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(":")
            if fields[0] == user and len(fields) > 7 and fields[7].isdigit():
                return datetime.date(1970, 1, 1) + datetime.timedelta(days=int(fields[7]) - 1)
        return None

    def ensure(self, user: str, reserved_uids: Collection[int] = ()) -> int:
        """Make the user's account if there is none; its uid. Idempotent.

        `reserved_uids` are in use elsewhere (owner marks of containers) and never given.
        """
        uid = self.uid_of(user)
        if uid is None:
            uid = self._uids.take(reserved_uids)
            self._ensure_home(user)
            _run(
                [
                    "useradd",
                    *("-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"),  # ids inside containers are the engine's
                    "--uid",
                    str(uid),
                    "--gid",
                    GROUP,
                    "--no-create-home",
                    "--no-user-group",
                    "--home-dir",
                    str(self._paths.homes / user),
                    "--shell",
                    LOGIN_SHELL,
                    "--password",
                    "*",
                    user,
                ],
            )
        self._ensure_home(user)
        return uid

    def next_uid(self, reserved_uids: Collection[int] = ()) -> int:
        """The uid that ensure() would give to a new account."""
        return self._uids.next(reserved_uids)

    def give_up(self, user: str) -> None:
        """Undo ensure() for an account that was never used: its uid can be given again."""
        uid = self.uid_of(user)
        self.remove(user)
        if uid is not None:
            self._uids.give_back(uid)

    def lock(self, user: str) -> None:
        """Lock the account, and end what runs as this user."""
        uid = self.uid_of(user)
        if uid is not None:
            _run(["usermod", "--lock", "--expiredate", "1", user])
            end_processes(uid)

    def is_locked(self, user: str) -> bool:
        """Whether the user's account is as lock() leaves it."""
        return self.last_day(user) == LOCKED_SINCE

    def unlock(self, user: str, last_day: datetime.date | None = None) -> None:
        """Take a lock() back; `last_day` as set_expiry() takes it."""
        if self.uid_of(user) is not None:
            _run(["usermod", "--unlock", user])
            self.set_expiry(user, last_day)

    def set_expiry(self, user: str, last_day: datetime.date | None) -> None:
        """The last day on which this user may log in; None for no such day."""
        # The system's own date is the first day on which nobody gets in any more.
        first = (last_day + datetime.timedelta(days=1)).isoformat() if last_day else ""
        _run(["usermod", "--expiredate", first, user])

    def note_login(self, user: str) -> None:
        """Remember that this user has logged in now."""
        path = self._paths.state / "logins" / user
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:  # a full disk must not keep anybody out
            log.warning("login not noted", extra={"user": user, "why": str(error)})

    def last_login(self, user: str) -> str | None:
        """When this user logged in last, as RFC 3339 has it; None if they never did."""
        try:
            moment = (self._paths.state / "logins" / user).stat().st_mtime
        except OSError:
            return None
        return shown.rfc3339(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat())

    def remove(self, user: str) -> None:
        """Take the account, its keys and its home away, locked first."""
        self.lock(user)
        files.remove(self._paths.keys / user)
        files.remove(self._paths.state / "logins" / user)
        if self.uid_of(user) is not None:
            _run(["userdel", user])
        with contextlib.suppress(OSError):  # not there, or with something in it that is not ours to delete
            (self._paths.homes / user).rmdir()

    def keys_of(self, user: str) -> list[PublicKey]:
        content = files.read(self._paths.keys / user) or b""
        return keys.parse_authorized_keys(content.decode("utf-8", "surrogateescape"))

    def set_keys(self, user: str, public_keys: list[PublicKey]) -> None:
        files.ensure_folder(self._paths.keys)
        text = keys.authorized_keys(map(keys.line_on_host, public_keys))
        files.write(self._paths.keys / user, text.encode("utf-8", "surrogateescape"))

    def _ensure_home(self, user: str) -> None:
        files.ensure_folder(self._paths.homes / user)


def group_names(user: str, gid: int) -> frozenset[str]:
    """The names of every group `user` is in."""
    names = set()
    for group in os.getgrouplist(user, gid):
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(group).gr_name)
    return frozenset(names)


def end_processes(uid: int) -> None:
    """End every process that runs as `uid`: SIGTERM, then SIGKILL for what is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_SECONDS / 2
        while processes := [process for process in psutil.process_iter(["uids"]) if _runs_as(process, uid)]:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            _, alive = psutil.wait_procs(processes, timeout=0.2)
            if time.monotonic() > deadline and alive:
                break


def _runs_as(process: psutil.Process, uid: int) -> bool:
    uids = process.info["uids"]
    return uids is not None and uid in (uids.real, uids.effective)


def _group_id() -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        raise LabshellError(
            "host-group-missing", "The host has no group {group}; run scripts/setup-host.", group=GROUP
        ) from None


def _run(argv: list[str]) -> None:
    """Run one of the host's account programs; what it printed goes into the error."""
    done = host_program.run(argv)
    if done.returncode != 0:
        raise LabshellError(
            "account-program-refused",
            "{program} refused: {reason}.",
            program=argv[0],
            reason=host_program.reason_of(done),
        )
