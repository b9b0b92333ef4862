"""What a test expects of something that is refused: the kind of error and its id, whatever its sentence says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import pytest

from labshell.errors import LabshellError

Kind = TypeVar("Kind", bound=LabshellError)


@contextlib.contextmanager
def refused(kind: type[Kind], error_id: str) -> Iterator[pytest.ExceptionInfo[Kind]]:
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.id == error_id
