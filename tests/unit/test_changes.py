"""The change log, also where a full disk has cut a line off."""

from __future__ import annotations

from pathlib import Path

from labshell.host.changes import ChangeLog
from labshell.host.clock import Clock


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "changes.log"
    log = ChangeLog(path, Clock())
    log.add("root", "add-user", "ada", {"memory": "8GiB"}, "done")
    with path.open("a") as file:
        file.write('{"time": "20')
    log.add("root", "remove-user", "ada", {}, "done")
    log.add("root", "add-user", "bob", {}, "done")
    assert [(line["verb"], line["subject"]) for line in log.last(3)] == [("remove-user", "ada"), ("add-user", "bob")]
    assert len(log.last(50)) == 3
    assert log.last(50)[0]["given"] == {"memory": "8GiB"}


def test_what_failed_is_found_among_what_did_not(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "changes.log", Clock())
    for number in range(5):
        log.add("root", "set", f"u{number}", {}, "done" if number % 2 else f"No {number}.")
    assert [line["result"] for line in log.last(2, only_errors=True)] == ["No 2.", "No 4."]
    assert len(log.last(50, only_errors=True)) == 3
