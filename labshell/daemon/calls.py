"""One request on its way through: who sent it, and how it is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from labshell import remedies
from labshell.errors import LabshellError
from labshell.model.access import Caller
from labshell.operations.steps import Progress, Steps
from labshell.wire import protocol

T = TypeVar("T")


class Attached(TypedDict):
    """A reply with descriptors, of which there are as many in `Call.attached`."""

    attached: int


# What a method of an interface does: progress and attached descriptors on the way, the last reply in the end.
Answer = Generator[Progress | Attached, None, dict[str, Any]]


@dataclass
class Call:
    """One connection's side of a request: who calls, whether they have gone, what goes along with a reply."""

    caller: Caller
    is_gone: Callable[[], bool] = lambda: False
    wants_more: bool = False
    attached: list[int] = field(default_factory=list)
    afterwards: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # what the last reply still needs


def at_once(answer: Callable[..., T], *arguments: Any) -> Steps[T]:
    """A verb without steps in the form of one with."""
    yield from ()
    return answer(*arguments)


def error_reply(error: LabshellError, *, to_root: bool = False) -> bytes:
    """An error as it is sent; root also gets the engine's own words and the remedy, where there are any."""
    parameters: dict[str, Any] = {"id": error.id, "sentence": error.sentence, "values": error.values}
    if to_root:
        parameters |= {"detail": error.detail or None, "remedy": remedies.of(error) or None}
    return protocol.encode({"error": f"{protocol.GATEWAY}.{error.name}", "parameters": parameters})
