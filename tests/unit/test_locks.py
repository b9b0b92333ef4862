"""Waiting in the daemon: in order, within limits."""

from __future__ import annotations

import contextlib
import threading
import time

from refusals import refused

from labshell.errors import TryAgain
from labshell.operations.locks import StartQueue, UserLocks


def test_one_user_waits_for_oneself_and_for_nobody_else() -> None:
    locks = UserLocks(0.05)
    with locks.held("alice"):
        with locks.held("bob"):
            pass
        errors: list[BaseException] = []

        def again() -> None:
            try:
                with locks.held("alice"):
                    pass
            except TryAgain as error:
                errors.append(error)

        thread = threading.Thread(target=again)
        thread.start()
        thread.join(10)
        assert len(errors) == 1
    with locks.held("alice"):
        pass
    assert locks._locks == {}


def test_so_many_start_at_once_and_the_others_know_their_place() -> None:
    queue = StartQueue(2)
    with contextlib.ExitStack() as held:
        first = held.enter_context(queue.ticket())
        held.enter_context(queue.ticket())
        assert list(queue.places(first, time.monotonic())) == []
        with queue.ticket() as third, queue.ticket() as fourth:
            assert next(queue.places(third, time.monotonic() + 5)) == 1
            assert next(queue.places(fourth, time.monotonic() + 5)) == 2


def test_a_place_moves_up_when_somebody_is_done() -> None:
    queue = StartQueue(1)
    with contextlib.ExitStack() as running:
        running.enter_context(queue.ticket())
        with queue.ticket() as second:
            places = queue.places(second, time.monotonic() + 5)
            assert next(places) == 1
            running.close()
            assert list(places) == []


def test_waiting_for_a_start_is_bounded() -> None:
    queue = StartQueue(1)
    with queue.ticket(), queue.ticket() as second, refused(TryAgain, "starts-too-many"):
        list(queue.places(second, 0))
