"""What labshell-admin answers to nothing, and to a wrong command or option."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from labshell.admin import csv_import
from labshell.admin import main as admin
from labshell.config import Config
from labshell.errors import UsageError
from labshell.wire import protocol

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1l1VbGkCyV0pQ2sVvNqHkGf1yqk1m0cO5vY2nQnJ8M"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of a call that is wrong, or help."""
    with pytest.raises(SystemExit) as ended:
        admin.parser().parse_args(arguments)
    said = capsys.readouterr()
    return int(str(ended.value)), said.out, said.err


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[object, str, str]:
    """Status, output and errors of a call by root that fails."""
    monkeypatch.setattr(sys, "argv", ["labshell-admin", *arguments])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SystemExit) as ended:
        admin.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def commands() -> list[str]:
    [choices] = [action.choices for action in admin.parser()._actions if action.choices]
    return list(choices)


def test_without_a_command_there_is_a_list_that_fits_a_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["labshell-admin"])
    with pytest.raises(SystemExit) as ended:
        admin.main()
    assert ended.value.code == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) < 80
    words = " ".join(line[2:] for line in lines if line.startswith("  ")).replace(",", " ").split()
    assert [name for name in commands() if name not in words] == []
    assert answer(capsys, "--help") == (0, admin.OVERVIEW, "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["shwo", "alice"], "there is no command 'shwo'; did you mean 'show'?"),
        (["adduser", "alice"], "there is no command 'adduser'; did you mean 'add-user'?"),
        (["template", "biuld"], "there is no template command 'biuld'; did you mean 'build'?"),
        (["set", "alice", "--memroy", "1GiB"], "'--memroy' is not expected; did you mean '--memory'?"),
        (["set", "alice", "--memroy=1GiB"], "'--memroy=1GiB' is not expected; did you mean '--memory'?"),
        (["template", "build", "--nmae", "x"], "'--nmae' is not expected; did you mean '--name'?"),
        (["xyzzy"], "there is no command 'xyzzy'"),
        (["show", "alice", "bob"], "'bob' is not expected"),
        (["remove-user"], "the following arguments are required: name"),
    ],
)
def test_what_was_mistyped_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], meant: str
) -> None:
    status, output, errors = answer(capsys, *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(f"labshell-admin: {meant}. More: labshell-admin")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error_id", "status"),
    [
        (["list", "--json"], "not-root", 77),
        (["shwo", "alice", "--json"], "arguments-invalid", 2),
        (["show", "--json"], "arguments-invalid", 2),
    ],
)
def test_with_json_an_error_is_one_line_of_json_and_standard_output_empty(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error_id: str,
    status: int,
) -> None:
    monkeypatch.setattr(sys, "argv", ["labshell-admin", *arguments])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        admin.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (status, "", 1)
    error = json.loads(said.err)["error"]
    assert (error["id"], list(error)) == (error_id, ["id", "message", "remedy"])


@pytest.mark.parametrize("name", ["remove-user", "remove-service"])
def test_with_json_nobody_on_a_terminal_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    status, output, errors = run(capsys, monkeypatch, name, "alice", "--json")
    assert (status, output, json.loads(errors)["error"]["id"]) == (2, "", "removal-unconfirmed")


def test_the_end_of_input_is_no_yes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", mock.Mock(side_effect=EOFError))
    status, _, errors = run(capsys, monkeypatch, "remove-user", "alice")
    assert (status, errors) == (2, "labshell-admin: Nothing was removed.\n")


FAILING = [
    (
        ("import", "{folder}/class.csv", "--json"),
        {"List": []},
        lambda answer: answer[0]["result"],
        "import-incomplete",
    ),
    (
        ("import-host", "--json"),
        {"AdoptionPlan": [{"name": "hank", "state": "running", "other_ports": [], "returning": False, "problem": ""}]},
        lambda answer: answer[0]["result"],
        "adoption-incomplete",
    ),
    (
        ("drain", "--stop", "--json"),
        {"Drain": {"failed": [{"name": "ada", "why": "No."}], "containers": [], "stopped": []}},
        lambda answer: answer["failed"][0]["why"],
        "containers-not-stopped",
    ),
    (
        ("undrain", "--start", "--json"),
        {"Undrain": {"failed": [{"name": "ada", "why": "No."}], "started": [], "stopped": ["ada"]}},
        lambda answer: answer["failed"][0]["why"],
        "containers-not-started",
    ),
]


@pytest.mark.parametrize(("arguments", "replies", "why", "error_id"), FAILING, ids=[case[0][0] for case in FAILING])
def test_with_json_each_stream_has_one_thing_where_some_of_many_fail(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    replies: dict[str, Any],
    why: Callable[[Any], str],
    error_id: str,
) -> None:
    def call(_: object, method: str, *__: object) -> Iterator[dict[str, Any]]:
        name = method.rpartition(".")[2]
        yield {"progress": {"sentence": "Looking", "values": {}}}
        if name not in replies:
            raise UsageError("user-missing", "No.")
        yield {"result": replies[name]}

    monkeypatch.setattr(protocol, "call", call)
    monkeypatch.setattr(csv_import, "load", Config)
    (tmp_path / "class.csv").write_text(f"above the header\nname,key,remark\nada,{KEY},x\n")
    status, output, errors = run(capsys, monkeypatch, *(word.format(folder=tmp_path) for word in arguments))
    assert (status, why(json.loads(output))) == (1, "No.")
    assert json.loads(errors)["error"]["id"] == error_id


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, output, errors = answer(capsys, name, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: labshell-admin {name}")
