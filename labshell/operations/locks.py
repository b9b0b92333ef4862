"""Who waits for whom in the daemon: one command per user at a time, so many starts at once. Every wait is bounded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from labshell.errors import TryAgain


class UserLocks:
    """One lock per user; waiting for it is bounded."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def held(self, user: str, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the user's lock; TryAgain after `timeout_seconds`, or after the usual time."""
        with self._guard:
            lock, waiting = self._locks.get(user, (threading.Lock(), 0))
            self._locks[user] = (lock, waiting + 1)
        try:
            if not lock.acquire(timeout=self._timeout if timeout_seconds is None else timeout_seconds):
                raise TryAgain(
                    "user-locked", "Another command for {user} is still running; try again in a moment.", user=user
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, waiting = self._locks[user]
                if waiting == 1:
                    del self._locks[user]
                else:
                    self._locks[user] = (lock, waiting - 1)


class StartQueue:
    """At most `limit` containers start at once; the others wait in order and know their place."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._tickets: list[object] = []

    @contextlib.contextmanager
    def ticket(self) -> Iterator[object]:
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def places(self, ticket: object, deadline: float) -> Iterator[int]:
        """The place in the queue, each time it changes, until it is this ticket's turn.

        `deadline` is in the seconds of time.monotonic(); TryAgain after it.
        """
        shown = None
        while True:
            with self._changed:
                place = self._tickets.index(ticket) - self._limit + 1
                if place > 0 and place == shown:
                    self._changed.wait(timeout=1.0)
                    place = self._tickets.index(ticket) - self._limit + 1
            if place <= 0:
                return
            if time.monotonic() > deadline:
                raise TryAgain("starts-too-many", "Too many containers are starting; try again in a few minutes.")
            if place != shown:
                shown = place
                yield place
