"""When each container was last at work, in one file of root's: it outlives restarts of the daemon and of the host."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from labshell.errors import LabshellError
from labshell.host import files

log = logging.getLogger(__name__)


class Activity:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, float]:
        """Container -> seconds since 1970. With a damaged file all idle times begin again, which does no harm."""
        try:
            content = files.read(self._path)
            return {str(name): float(moment) for name, moment in json.loads(content or b"{}").items()}
        except (LabshellError, ValueError, TypeError, AttributeError):
            log.warning("damaged file of last activity", extra={"path": str(self._path)})
            return {}

    def write(self, moments: Mapping[str, float]) -> None:
        files.write(self._path, json.dumps({name: int(moment) for name, moment in moments.items()}).encode(), 0o600)
