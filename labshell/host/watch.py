"""What changes in a folder, from the kernel: thousands of files are read once, and not at every look."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from inotify_simple import INotify, flags

log = logging.getLogger(__name__)
IN_A_FILE = flags.CREATE | flags.MODIFY | flags.ATTRIB | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
OF_THE_FOLDER = flags.DELETE_SELF | flags.MOVE_SELF
WITHOUT_BEING_ASKED = flags.UNMOUNT | flags.IGNORED | flags.Q_OVERFLOW


class Watch:
    """One folder, by one caller at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notify: INotify | None = None
        self._place = (0, 0)  # the folder that is watched: another may have come in its place, or over it

    def changed(self) -> set[str] | None:
        """The names of what has changed since the last call; None for anything and everything.

        A write is known the moment it has happened, by whichever program on this machine.
        """
        try:
            about = self._folder.stat()
            if self._notify is None or self._place != (about.st_dev, about.st_ino):
                self._begin()
                self._place = (about.st_dev, about.st_ino)
                return None
            events = self._notify.read(timeout=0)
        except OSError as error:
            log.debug("not watched", extra={"path": str(self._folder), "why": str(error)})
            self.close()
            return None
        if any(event.mask & (OF_THE_FOLDER | WITHOUT_BEING_ASKED) or not event.name for event in events):
            self.close()
            return None
        return {event.name for event in events}

    def _begin(self) -> None:
        self.close()
        self._notify = INotify(nonblocking=True)
        self._notify.add_watch(self._folder, IN_A_FILE | OF_THE_FOLDER)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self._notify is not None:
            with contextlib.suppress(OSError):
                self._notify.close()
            self._notify = None
