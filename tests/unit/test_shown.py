"""How figures are shown to people."""

from __future__ import annotations

import pytest

from labshell import shown
from labshell.records import usage_of


@pytest.mark.parametrize("unknown", [None, -1])
def test_a_figure_that_the_engine_does_not_know_is_a_question_mark(unknown: int | None) -> None:
    assert (shown.size(unknown), shown.duration(unknown)) == ("?", "?")


@pytest.mark.parametrize("unknown", [None, 0, -1])
def test_a_figure_that_the_engine_lacks_is_none_in_the_record(unknown: int | None) -> None:
    found = usage_of({"memory": {"usage": unknown}, "cpu": {"usage": unknown}, "disk": {"root": {"usage": unknown}}})
    assert (found.memory, found.disk, found.cpu_seconds) == (None, None, None)
