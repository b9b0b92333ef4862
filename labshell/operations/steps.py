"""Operations as steps: what is happening now, for the waiting caller, and how it is undone if a later step fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

from labshell.errors import LabshellError
from labshell.wire import gateway

log = logging.getLogger(__name__)
T = TypeVar("T")
CLEAN_UP = "Run remove-user to clean up."


class Progress(NamedTuple):
    """One thing that is happening now: a template with named values, like an error's sentence."""

    sentence: str
    values: dict[str, str] = {}  # noqa: RUF012 - never changed: a NamedTuple's default

    @property
    def message(self) -> gateway.Progress:
        return {"sentence": self.sentence, "values": self.values}


Steps = Generator[Progress, None, T]
NamedStep = tuple[str, Callable[[], Steps[None] | None]]


class Undo:
    """What to do, in reverse order, if the steps do not all succeed; failures on the way are collected."""

    def __init__(self, remedy: str) -> None:
        """`remedy` is the sentence that says how to clean up what could not be undone."""
        self._remedy = remedy
        self._stack = contextlib.ExitStack()
        self._problems: list[str] = []

    def __enter__(self) -> None:
        self._stack.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def later(self, act: Callable[[str], object], name: str) -> None:
        self._stack.callback(self._try, act, name)

    def forget(self) -> None:
        self._stack.pop_all()

    def _try(self, act: Callable[[str], object], name: str) -> None:
        try:
            act(name)
        except LabshellError as error:
            log.exception("undoing failed", extra={"user": name})
            self._problems.append(str(error))

    @property
    def sentence(self) -> str:
        if self._problems:
            return " ".join(["Not everything could be undone:", *self._problems, self._remedy])
        return "What the steps before it did has been undone."


def do(name: str, done: str, steps: Iterator[NamedStep], undo: Undo) -> Steps[None]:
    """Do the steps; if one fails, what those before it did is undone, and the error names it.

    `done` is what the steps together are for: "added", "restored".
    """
    step = ""
    try:
        with undo:
            for step, act in steps:
                yield Progress(step)
                yield from act() or ()
            undo.forget()
    except LabshellError as error:
        raise type(error).around(
            error,
            '{name} was not {done}: it failed at the step "{step}". {reason} {undone}',
            name=name,
            done=done,
            step=step,
            reason=error,
            undone=undo.sentence,
        ) from error
