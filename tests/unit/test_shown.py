"""How figures are shown to people."""

from __future__ import annotations

import pytest

from labshell import shown


@pytest.mark.parametrize("unknown", [None, -1])
def test_a_figure_that_the_engine_does_not_know_is_a_question_mark(unknown: int | None) -> None:
    assert (shown.size(unknown), shown.duration(unknown)) == ("?", "?")
