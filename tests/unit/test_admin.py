"""What labshell-admin answers to nothing, and to a wrong command or option."""

from __future__ import annotations

import json
import sys

import pytest

from labshell.admin import main as admin


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of a call that is wrong, or help."""
    with pytest.raises(SystemExit) as ended:
        admin.parser().parse_args(arguments)
    said = capsys.readouterr()
    return int(str(ended.value)), said.out, said.err


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
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], error_id: str, status: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["labshell-admin", *arguments])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        admin.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (status, "", 1)
    error = json.loads(said.err)["error"]
    assert (error["id"], list(error)) == (error_id, ["id", "message", "remedy"])


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, output, errors = answer(capsys, name, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: labshell-admin {name}")
