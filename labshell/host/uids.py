"""Which uid a new account gets: the next of the range, and none that an account had before."""

from __future__ import annotations

import pwd
from collections.abc import Collection

from labshell.config import Paths
from labshell.errors import LabshellError
from labshell.host import files


class Uids:
    """The uids of one host's users. Safe for several processes at once."""

    def __init__(self, paths: Paths, uid_range: tuple[int, int]) -> None:
        self._first, self._last = uid_range
        self._counter = paths.state / "next-uid"
        self._unused_file = paths.state / "unused-uids"  # given to accounts that were undone before anybody used them
        self._lock = paths.run / "uids.lock"

    def next(self, reserved: Collection[int]) -> int:
        """The uid that take() would give."""
        with files.locked(self._lock):
            return self._next(reserved)

    def take(self, reserved: Collection[int]) -> int:
        """A uid that no account has or ever had; remembered before it is used."""
        with files.locked(self._lock):
            uid, unused = self._next(reserved), self._unused()
            if uid in unused:
                self._write_unused(unused - {uid})
            else:
                files.write(self._counter, f"{uid + 1}\n".encode(), 0o600)
            return uid

    def give_back(self, uid: int) -> None:
        """Take back a uid whose account is undone."""
        with files.locked(self._lock):
            self._write_unused(self._unused() | {uid})

    def _next(self, reserved: Collection[int]) -> int:
        in_use = {entry.pw_uid for entry in pwd.getpwall()} | set(reserved)
        unused = [uid for uid in self._unused() if self._first <= uid <= self._last and uid not in in_use]
        if unused:
            return min(unused)
        content = files.read(self._counter)
        if content is not None and not content.strip().isdigit():
            raise LabshellError(
                "next-uid-file-damaged",
                "{path} does not hold a number; write the next free uid into it.",
                path=self._counter,
            )
        uid = max(self._first, int(content or 0))
        while uid in in_use:
            uid += 1
        if uid > self._last:
            raise LabshellError(
                "uid-range-exhausted", "Every uid up to {last} has been used; widen uid_range.", last=self._last
            )
        return uid

    def _unused(self) -> set[int]:
        """What was given back; a line that is no number is left out, which costs one uid."""
        lines = (files.read(self._unused_file) or b"").split()
        return {int(line) for line in lines if line.isdigit()}

    def _write_unused(self, uids: Collection[int]) -> None:
        files.write(self._unused_file, "".join(f"{uid}\n" for uid in sorted(uids)).encode(), 0o600)
