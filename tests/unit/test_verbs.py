"""Lines of researchers: understood, or refused in one sentence."""

from __future__ import annotations

import pytest

from labshell.errors import UsageError
from labshell.shell import verbs


@pytest.mark.parametrize(
    ("line", "verb", "action", "arguments", "options"),
    [
        ("status", "status", "", [], {}),
        ("  stop   --force  --json ", "stop", "", [], {"force": "--force", "json": "--json"}),
        ("?", "help", "", [], {}),
        ("help stop", "help", "", ["stop"], {}),
        ("enter", "enter", "", [], {}),
        ("enter --root", "enter", "", [], {"root": "--root"}),
        ("run --root  ls  -la 'a  b'", "run", "", ["ls  -la 'a  b'"], {"root": "--root"}),
        ("run echo --root", "run", "", ["echo --root"], {}),
        ("ports", "ports", "", [], {}),
        ("ports add 8888 --name jupyter --for 8h", "ports", "add", ["8888"], {"name": "jupyter", "for": "8h"}),
        ("ports remove 8888", "ports", "remove", ["8888"], {}),
        ("keys add ssh-ed25519 AAAA me at home", "keys", "add", ["ssh-ed25519 AAAA me at home"], {}),
        ("keys remove 2 --yes", "keys", "remove", ["2"], {"yes": "--yes"}),
        ("keys remove my old pc --yes", "keys", "remove", ["my old pc"], {"yes": "--yes"}),
        ("keys remove --end-sessions a@b", "keys", "remove", ["a@b"], {"end-sessions": "--end-sessions"}),
    ],
)
def test_a_line_is_understood(
    line: str, verb: str, action: str, arguments: list[str], options: dict[str, str]
) -> None:
    request = verbs.parse(line)
    assert (request.verb.name, request.action, request.arguments, request.options) == (
        verb,
        action,
        arguments,
        options,
    )


@pytest.mark.parametrize(
    "line",
    ["", "x", "STATUS", "status; id", "status -x", "status --js", "status now", "stop --force=1", "help me", "ports add", "ports add 1 2",
     "ports add 1 --name", "ports frobnicate", "rebuild list", "run", "run --fast x", "enter --fast", "version\x00", "x" * 5000, "status " + "x" * 5000, "$(id)", "../status"],
)  # fmt: skip
def test_any_other_line_is_refused_in_one_printable_sentence(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        verbs.parse(line)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_help_names_every_verb_and_option_and_fits_80_columns() -> None:
    for text in (verbs.help_text(), *(verbs.help_text(verb.name) for verb in verbs.VERBS)):
        assert max(len(line) for line in text.splitlines()) <= 80
    assert all(verb.name in verbs.help_text() for verb in verbs.VERBS)
    for verb in verbs.VERBS:
        assert all(f"--{option}" in verbs.help_text(verb.name) for form in verb.forms for option in form.options)
