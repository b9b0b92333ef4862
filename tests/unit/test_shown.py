"""How figures are shown to people."""

from __future__ import annotations

import time

import pytest

from labshell import shown
from labshell.engine.records import usage_of


@pytest.mark.parametrize("unknown", [None, -1])
def test_a_figure_that_the_engine_does_not_know_is_a_question_mark(unknown: int | None) -> None:
    assert (shown.size(unknown), shown.duration(unknown)) == ("?", "?")


@pytest.mark.parametrize("unknown", [None, 0, -1])
def test_a_figure_that_the_engine_lacks_is_none_in_the_record(unknown: int | None) -> None:
    found = usage_of({"memory": {"usage": unknown}, "cpu": {"usage": unknown}, "disk": {"root": {"usage": unknown}}})
    assert (found.memory, found.disk, found.cpu_seconds) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-27T18:58:52Z", "2026-11-27T18:58:52Z"),
        ("2026-11-27T18:58:52+00:00", "2026-11-27T18:58:52Z"),
        ("2026-11-27T18:58:52.123456789+01:00", "2026-11-27T17:58:52Z"),
        ("2026-11-27T18:58:52", "2026-11-27T18:58:52Z"),
        ("yesterday", None),
        (None, None),
    ],
)
def test_a_moment_for_programs_has_one_form(text: str | None, utc: str | None) -> None:
    assert shown.rfc3339(text) == utc


def test_a_moment_for_people_is_in_the_hosts_zone_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert shown.moment("2026-11-27T18:58:52Z") == "2026-11-27 19:58 CET"
        assert shown.moment("2026-07-27T18:58:52.5+00:00") == "2026-07-27 20:58 CEST"
        assert shown.moment("\x1bnever") == "\\x1bnever"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("text", "words"), [("64GiB", "64 GiB"), ("1GiB", "1.0 GiB"), ("50%", "50%"), ("512MiB", "512 MiB")])
def test_a_limit_is_shown_like_any_size(text: str, words: str) -> None:
    assert shown.limit(text) == words
