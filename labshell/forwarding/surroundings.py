"""What is around the host now: its uplinks, and the file servers that it has mounted."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from labshell.errors import LabshellError
from labshell.forwarding.guard_rules import Surroundings
from labshell.host import files, machine

INTERFACE = re.compile(r"[\w.-]{1,15}", re.ASCII)


class Lookout:
    """Sees what is around, and remembers the last uplinks."""

    def __init__(self, memory: Path) -> None:
        """`memory` is the file that holds the last uplinks over a reboot."""
        self._memory = memory
        self.around = Surroundings()

    def look(self) -> None:
        """See what is around now. Without an uplink, as at boot before the network is up, the last one holds."""
        last = self.around.ways_out or self._remembered()
        found = machine.ways_out()
        if found and found != last:
            with contextlib.suppress(LabshellError):  # a full disk: the rules of now are right all the same
                files.write(self._memory, "\n".join(found).encode())
        self.around = Surroundings(found or last, machine.file_servers())

    def _remembered(self) -> list[str]:
        """None if the file is damaged; what is no interface's name would break the rules."""
        content = b""
        with contextlib.suppress(LabshellError):
            content = files.read(self._memory) or b""
        return [name for name in content.decode("ascii", "replace").split() if INTERFACE.fullmatch(name)]
