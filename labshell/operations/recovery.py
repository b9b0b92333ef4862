"""What a crash cut off is brought to one end or the other before its user's next request."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from labshell.errors import LabshellError, TryAgain
from labshell.operations.lab import Lab
from labshell.operations.rebuild import REBUILD, UNDO, Rebuild
from labshell.operations.snapshots import CREATING, RESTORING, Snapshots
from labshell.operations.steps import Progress, Steps

log = logging.getLogger(__name__)


class Recovery:
    """The recovery of one host's operations."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        rebuild, snapshots = Rebuild(lab), Snapshots(lab)
        # By the verb in the note: ends what was begun, and leaves a notice.
        self._recover: dict[str, Callable[[str, dict[str, Any]], None]] = {
            REBUILD: rebuild.recover,
            UNDO: rebuild.recover,
            CREATING: snapshots.recover_create,
            RESTORING: snapshots.recover_restore,
        }

    def recover(self, user: str) -> Steps[None]:
        """Complete what a crash cut off. A command that holds this user's lock does it itself.

        If it cannot be done now, the next request tries again; what was asked for goes on, it may be the way out.
        """
        unfinished = self._lab.unfinished
        if unfinished.work_of(user) is None:
            return
        with contextlib.suppress(TryAgain), self._lab.locks.held(user, timeout_seconds=0):
            work = unfinished.work_of(user)
            if work is not None:
                yield Progress("Recovering an interrupted operation")
                try:
                    self._recover[work["verb"]](user, work)
                except LabshellError as error:
                    log.warning("not settled", extra={"user": user, "verb": work["verb"], "why": str(error)})

    def recover_first(self, user: str) -> Steps[None]:
        """The same for whoever changes what recovering would put back."""
        yield from self.recover(user)
        self._lab.unfinished.refuse_open(user)
