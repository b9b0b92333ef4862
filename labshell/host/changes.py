"""The change log: who did what when, one JSON object a line, appended and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from labshell import shown
from labshell.errors import LabshellError
from labshell.host.clock import Clock
from labshell.wire.admin import ChangeEntry

DONE = "done"
KNOWN = ("time", "who", "verb", "subject", "result")  # what a line always has; the rest are options


class ChangeLog:
    """What administrators have changed on this host."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def add(self, who: str, verb: str, subject: str, given: Mapping[str, str], result: str) -> None:
        """Append one change; `given` are the options, `result` is DONE or the sentence of the error."""
        line = {
            "time": shown.rfc3339(self._clock.now().isoformat()),
            "who": who,
            "verb": verb,
            "subject": subject,
            **given,
            "result": result,
        }
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                is_cut_off = size and os.pread(descriptor, 1, size - 1) != b"\n"  # the one before
                written = json.dumps(line, ensure_ascii=True).encode()
                os.write(descriptor, b"\n" * bool(is_cut_off) + written + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LabshellError(
                "file-not-written", "{path} cannot be written: {why}.", path=self._path, why=error.strerror
            ) from error

    def last(self, count: int, *, only_errors: bool = False) -> list[ChangeEntry]:
        """The last `count` changes, or failures, oldest first; a line that a crash cut off is left out."""
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found: list[ChangeEntry] = []
        for line in lines if only_errors else lines[-count:]:
            try:
                written = {name: str(value) for name, value in dict(json.loads(line)).items()}
            except (ValueError, TypeError):
                continue
            known = {name: written.pop(name, "") for name in KNOWN}
            if not only_errors or known["result"] != DONE:
                found.append({"time": known["time"], "who": known["who"], "verb": known["verb"],
                              "subject": known["subject"], "given": written, "result": known["result"]})  # fmt: skip
        return found[-count:]
