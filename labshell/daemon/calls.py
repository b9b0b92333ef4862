"""One request on its way through: who sent it, and how a verb's steps become replies."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from labshell import remedies
from labshell.errors import LabshellError
from labshell.model.access import Caller
from labshell.operations.steps import Steps
from labshell.wire import protocol


@dataclass
class Call:
    """One connection's side of a request: who calls, whether they have gone, what goes along with a reply."""

    caller: Caller
    is_gone: Callable[[], bool] = lambda: False
    wants_more: bool = False
    attached: list[int] = field(default_factory=list)


def progress(steps: Steps[Any], *, more: bool) -> Generator[dict[str, Any], None, Any]:
    """A verb's progress as replies, if the caller wants more than one; returns its answer."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            return stop.value
        if more:
            yield {"_continues": True, "progress": progress._asdict()}


def answers(steps: Steps[Any], name: str, *, more: bool) -> Iterator[dict[str, Any]]:
    """A verb's steps as replies: progress, then the answer as `name`."""
    answer = yield from progress(steps, more=more)
    yield {"_continues": False, name: answer}


def at_once(answer: Callable[..., Any], *arguments: Any) -> Steps[Any]:
    """A verb without steps in the form of one with."""
    yield from ()
    return answer(*arguments)


def error_reply(error: LabshellError, *, to_root: bool = False) -> bytes:
    """An error as it is sent; root also gets the engine's own words and the remedy, where there are any."""
    parameters: dict[str, Any] = {"id": error.id, "sentence": error.sentence, "values": error.values}
    if to_root:
        parameters |= {"detail": error.detail or None, "remedy": remedies.of(error) or None}
    return protocol.encode({"error": f"{protocol.GATEWAY}.{error.name}", "parameters": parameters})
