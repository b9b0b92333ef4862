"""What was begun with a user's container and not finished: one file per user, written before, removed after.

A daemon that is killed in between leaves the file. The user's next request recovers it, one way or the
other, and a notice, in a second file, tells them which at their next login.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labshell.errors import LabshellError, StillPending, TryAgain
from labshell.host import files
from labshell.wire import gateway


class Unfinished:
    """The notes on work in progress and the notices for its owners, in a folder of root's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def work(self, user: str, verb: str, **about: Any) -> Iterator[None]:
        """Note what is being done while the block runs.

        An error takes the note away: whoever raised has cleaned up. After StillPending it stays, since the engine
        may still be at it.
        """
        self.begin(user, verb, **about)
        try:
            yield
        except StillPending:
            raise
        except Exception:
            self.forget(user)
            raise
        self.forget(user)

    def begin(self, user: str, verb: str, *, over: dict[str, Any] | None = None, **about: Any) -> None:
        """Note what is being done. Nothing else may be open but `over`, which comes up again when this ends.

        The same verb once more takes its place.
        """
        if over is None:
            self.refuse_open(user)
        below = over.get("below") if over and over["verb"] == verb else over
        files.ensure_folder(self._folder, 0o700)
        files.write(self._work_file(user), json.dumps({"verb": verb, "below": below, **about}).encode(), 0o600)

    def refuse_open(self, user: str) -> None:
        if self.work_of(user) is not None:
            raise TryAgain(
                "recovery-pending", "A previous operation is still being recovered; try again in a moment."
            )

    def forget(self, user: str) -> None:
        below = (self.work_of(user) or {}).get("below")
        if below is None:
            files.remove(self._work_file(user))
        else:
            files.write(self._work_file(user), json.dumps(below).encode(), 0o600)

    def work_of(self, user: str) -> dict[str, Any] | None:
        """What was begun for `user` and has not ended: the verb and what begin() was told about it."""
        return self._read(self._work_file(user))

    def addresses(self) -> set[str]:
        """Addresses that a container is to have again when what was begun has ended."""
        found = set()
        for path in self._folder.glob("*.work"):
            work = None
            with contextlib.suppress(LabshellError):  # a damaged one is its owner's trouble
                work = self.work_of(path.stem)
            while work:
                found.add(work.get("address"))
                work = work.get("below")
        return {address for address in found if address}

    def settled(self, user: str, sentence: str, **values: str) -> None:
        """The matter is at an end; `sentence` is for the user's next login."""
        self.tell(user, sentence, **values)
        self.forget(user)

    def tell(self, user: str, sentence: str, **values: str) -> None:
        """Leave a notice for the user's next login."""
        files.ensure_folder(self._folder, 0o700)
        notice = {"sentence": sentence, "values": values}
        files.write(self._notice_file(user), json.dumps(notice).encode(), 0o600)

    def take_notice(self, user: str) -> gateway.Progress | None:
        """The notice for `user`, once."""
        notice = self._read(self._notice_file(user))
        if notice is None:
            return None
        files.remove(self._notice_file(user))
        return {"sentence": notice["sentence"], "values": notice["values"]}

    def remove(self, user: str) -> None:
        """Forget everything about a user who is gone."""
        for path in (self._work_file(user), self._notice_file(user)):
            files.remove(path)

    def _work_file(self, user: str) -> Path:
        return self._folder / f"{user}.work"

    def _notice_file(self, user: str) -> Path:
        return self._folder / f"{user}.notice"

    def _read(self, path: Path) -> dict[str, Any] | None:
        content = files.read(path)
        if content is None:
            return None
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError) as error:
            raise LabshellError(
                "note-damaged", "{path} is damaged; the administrator may remove it.", path=path
            ) from error
