"""The blocks of ports of removed users, which no other user gets for some days: bookmarks still lead to them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from labshell.errors import LabshellError
from labshell.host import files
from labshell.host.clock import Clock


class Quarantine:
    """One file of root's: the first port of a block -> when it may be given again. The caller holds the lock."""

    def __init__(self, folder: Path, days: int, clock: Clock) -> None:
        self._file = folder / "resting-ports.json"
        self._length = datetime.timedelta(days=days)
        self._clock = clock

    def blocks(self) -> dict[int, datetime.datetime]:
        """The blocks that are quarantined now, and until when."""
        content = files.read(self._file)
        if content is None:
            return {}
        try:
            entries = json.loads(content)
            until = {int(port): datetime.datetime.fromisoformat(day) for port, day in entries.items()}
            return {port: moment for port, moment in until.items() if moment > self._clock.now()}
        except (ValueError, AttributeError, TypeError) as error:
            raise LabshellError(
                "quarantine-file-damaged",
                "{path} is damaged; move it away to continue (this ends the quarantine of removed users' blocks).",
                path=self._file,
            ) from error

    def add(self, port: int) -> None:
        """Quarantine the block at `port` from now on; those whose time is over are forgotten."""
        blocks = self.blocks()
        if self._length:
            blocks[port] = self._clock.now() + self._length
        entries = {str(first): until.isoformat() for first, until in sorted(blocks.items())}
        files.write(self._file, json.dumps(entries, indent=1).encode() + b"\n", 0o600)
