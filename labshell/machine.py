"""The host itself: how loaded it is. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Load:
    """How busy the host is: load averages over 1, 5 and 15 minutes, processors, memory in bytes."""

    averages: tuple[float, float, float]
    processors: int
    memory_used: int
    memory_total: int

    @property
    def share(self) -> float:
        """The last minute's load as a share of all processors: 1.0 is fully busy."""
        return self.averages[0] / max(1, self.processors)


def load() -> Load:
    memory = psutil.virtual_memory()
    return Load(psutil.getloadavg(), psutil.cpu_count() or 1, memory.total - memory.available, memory.total)
