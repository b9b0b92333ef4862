"""The flag that disables new starts on this host (maintenance), with its message."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from labshell.errors import TryAgain
from labshell.host import files

LONGEST_MESSAGE = 500


class Closed:
    """The sign, as a file that survives restarts of daemon and host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped_file = path.with_name("stopped-by-drain")

    def close(self, message: str) -> None:
        files.write(self._path, message[:LONGEST_MESSAGE].encode())

    @property
    def stopped(self) -> list[str]:
        """The containers that were stopped for the maintenance, and not started since by undrain."""
        return (files.read(self._stopped_file) or b"").decode("ascii", "replace").split()

    def remember_stopped(self, names: Iterable[str]) -> None:
        text = "".join(f"{name}\n" for name in sorted(names))
        files.write(self._stopped_file, text.encode(), 0o600)

    def open(self) -> None:
        files.remove(self._path)

    @property
    def message(self) -> str | None:
        """Why nothing may start; None if everything may."""
        content = files.read(self._path)
        return None if content is None else content.decode("utf-8", "replace")

    def refuse_if_closed(self) -> None:
        message = self.message
        if message is not None:
            raise TryAgain("maintenance", "New starts are disabled (maintenance): {message}", message=message)
