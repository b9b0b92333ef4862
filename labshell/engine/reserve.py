"""A reserve on a container's disk, which lets it start on the day on which that is full.

A container whose disk limit is used up cannot be started or get a new limit: the engine writes there, too. So there
is a file beside the root file system, where its owner cannot use it up, that is deleted for such a start and made
again after it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from labshell.engine.client import Engine
from labshell.engine.errors import translate_errors
from labshell.errors import LabshellError

# What the engine keeps there are texts that it fills in, if its list names them; it does not name this one.
NAME = "labshell-reserve"
WHOLE = 32 << 20
# After a start on a full disk, the most that fits: what the container writes as it boots comes out of the rest.
PARTS = (24 << 20, 16 << 20, 8 << 20)
AS_BYTES = {"Content-Type": "application/octet-stream"}  # or the engine might read a form in it


class Reserve:
    """The reserves of one engine's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, name: str, sizes: Sequence[int]) -> bool:
        """Have a reserve of the first of these sizes for which there is room; whether there is one now."""
        if _file(sizes[0]) in self._existing(name):
            return True
        self.free(name)
        for size in sizes:
            try:
                with translate_errors(name, "be changed"):
                    # Random, so that a file system that compresses keeps its room, too.
                    content = os.urandom(size)
                    self._engine.write(*_templates(name), content=content, headers=AS_BYTES, path=_file(size))
                return True
            except LabshellError:
                self.free(name)  # what was written of it
        return False

    def free(self, name: str) -> bool:
        """Delete the reserve; whether there was one."""
        existing = self._existing(name)
        with translate_errors(name, "be changed"):
            for file in existing:
                self._engine.delete(*_templates(name), path=file)
        return bool(existing)

    def _existing(self, name: str) -> list[str]:
        with translate_errors(name, "be read"):
            return [file for file in self._engine.names(*_templates(name)) if file.startswith(NAME)]


def _templates(name: str) -> tuple[str, ...]:
    return "instances", name, "metadata", "templates"


def _file(size: int) -> str:
    return f"{NAME}-{size >> 20}"
