"""Every error has an id, which a program can rely on, and docs/errors.md lists it."""

from __future__ import annotations

import json
import re
import string

import error_list
import pytest

from labshell import remedies
from labshell.admin import answers
from labshell.errors import LabshellError, TryAgain, UsageError

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Errors that labshell notices before the engine says so: their ids and sentences are the engine's.
MADE_AGAIN = [
    ("engine/identity.py", "LabshellError(*FULL_POOL, action=CHANGE)"),
    ("engine/snapshots.py", "LabshellError(*LEFT_SNAPSHOT, name=name, action=KEEP)"),
    ("operations/lifecycle.py", "LabshellError(*FULL_POOL, action=action)"),
]


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_error_is_made_with_an_id_and_a_sentence_that_stand_there() -> None:
    assert len(error_list.raised()) > 250
    assert [(item.place.partition(":")[0], item.text) for item in error_list.unnamed()] == MADE_AGAIN


def test_an_id_is_words_in_small_letters() -> None:
    assert [item for item in error_list.raised() if not KEBAB.fullmatch(item.id)] == []


def test_an_id_has_one_sentence_and_a_sentence_one_id() -> None:
    pairs = {(item.id, item.sentence) for item in error_list.raised()}
    assert len({error_id for error_id, _ in pairs}) == len({sentence for _, sentence in pairs}) == len(pairs)


def test_every_place_gives_its_sentence_and_its_remedy_all_their_values() -> None:
    wanting = [
        item
        for item in error_list.raised()
        if not fields(item.sentence) | fields(remedies.REMEDIES.get(item.id, "")) <= item.values
    ]
    assert wanting == []


def test_every_remedy_is_of_an_error() -> None:
    assert remedies.REMEDIES.keys() <= {item.id for item in error_list.raised()}


def test_the_list_in_the_documents_is_that_of_the_code() -> None:
    """After a change: scripts/errors."""
    assert error_list.PAGE.read_text() == error_list.page()


def test_a_terminal_shows_no_command_twice_and_json_has_it_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with_command = [item for item in error_list.raised() if remedies.REMEDIES.get(item.id, "never") in item.sentence]
    assert len(with_command) > 5
    for item in with_command:
        error = LabshellError(item.id, item.sentence, **dict.fromkeys(item.values, "x"))
        command = remedies.of(error)
        assert answers.failure(error, as_json=False).count(command) == 1
        assert json.loads(answers.failure(error, as_json=True))["error"]["remedy"] == command


def test_a_remedy_is_safe_to_paste_whatever_the_values_are() -> None:
    error = UsageError("mount-source-missing", "There is no folder {path} on the host.", path="/a; rm -rf /")
    assert remedies.of(error) == "mkdir -p '/a; rm -rf /'"


def test_an_error_of_another_versions_daemon_has_no_remedy_and_is_shown_all_the_same() -> None:
    error = LabshellError("template-running", "The template {template} is running.", template="base")
    assert answers.failure(error, as_json=False) == "labshell-admin: The template base is running.\n"


def test_an_error_with_more_context_keeps_id_detail_and_remedy_of_its_cause() -> None:
    cause = UsageError("template-running", "The template {name} is running.", name="base")
    cause.detail = "is running"
    with pytest.raises(TryAgain) as caught:
        raise TryAgain.around(cause, "{name} was not added. {reason}", name="alice", reason=cause) from cause
    wider = caught.value
    assert (wider.id, wider.status, wider.detail) == ("template-running", 75, "is running")
    assert str(wider) == "alice was not added. The template base is running."
    assert remedies.of(wider) == "lxc stop base"


def test_the_administrator_is_told_all_there_is_and_a_program_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = LabshellError("engine-refused", "The container {name} cannot be started.", name="alice")
    error.detail = "No device\nfound"
    lines = ["labshell-admin: The container alice cannot be started.", "The engine said: No device\\x0afound"]
    assert answers.failure(error, as_json=False).splitlines() == lines
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert answers.failure(error, as_json=False).splitlines() == [*lines, "Remedy: lxc info alice --show-log"]
    assert json.loads(answers.failure(error, as_json=True)) == {
        "error": {
            "id": "engine-refused",
            "message": "The container alice cannot be started.",
            "remedy": "lxc info alice --show-log",
        }
    }
    told = UsageError(
        "template-running", "The template {name} is running; stop it first: lxc stop {name}", name="base"
    )
    assert answers.failure(told, as_json=False) == f"labshell-admin: {told}\n"  # which has the remedy in it
