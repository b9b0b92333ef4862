"""The verbs, what each of them does, and the methods of the users' interface: three lists that agree."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from labshell import places
from labshell.shell import actions, keys, logins, session, streams, verbs
from labshell.shell.card import Style
from labshell.wire import description, protocol
from labshell.wire.description import Array, Kind, Map, Maybe, Named, Struct

INTERFACE = description.load(protocol.GATEWAY)
METHODS = INTERFACE.methods.keys()
WORDS = {"PORT": "8888", "VERB": "stop", "TIME": "3d", "NETWORK": "192.0.2.0/24"}
BASIC = {bool: True, int: 1, float: 0.5, str: "2027-01-01T00:00:00Z"}  # a string that is a date, too
STATE = {"state": "running"}
FORMS = [(verb, form) for verb in verbs.VERBS for form in verb.forms]


def line(verb: verbs.Verb, form: verbs.Form, *, is_full: bool) -> str:
    """The form as it is typed: with everything that it takes but --json, or with no more than it needs."""
    arguments = [word for word in form.arguments if is_full or not word.startswith("[")]
    words = [word.strip("[].+") for word in arguments if word != "[ACTION]"]
    values = {name: verbs.OPTIONS[name][0] for name in form.options if name != "json"}
    options = [f"--{name} {WORDS.get(value, value)}" for name, value in values.items()]
    return " ".join(
        [verb.name, form.action, *(options if is_full else ()), *(WORDS.get(word, word) for word in words)]
    )


class Answer(dict[str, Any]):
    """A structure of the interface, in which nothing may be looked for that the interface does not name."""

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        assert name in self or name == "this_login"  # which the login shell adds itself
        return super().get(name, default)


def sample(kind: Kind, *, is_full: bool) -> Any:
    """A value of a type of the interface; what may be absent is there if `is_full`."""
    if isinstance(kind, Named):
        kind = INTERFACE.types[kind.name]
    if isinstance(kind, Maybe):
        return sample(kind.of, is_full=is_full) if is_full else None
    if isinstance(kind, Array):
        return [sample(kind.of, is_full=is_full)]
    if isinstance(kind, Map):
        return {}
    if isinstance(kind, Struct):
        fields = kind.fields.items()
        return Answer((name, STATE.get(name) or sample(field, is_full=is_full)) for name, field in fields)
    return BASIC[kind]


class Daemon:
    """Holds every request against the interface, and answers with what the interface allows."""

    def __init__(self, *, is_full: bool) -> None:
        self.asked: set[str] = set()
        self._is_full = is_full

    def call(self, path: str, method: str, parameters: dict[str, Any], _: float) -> Iterator[dict[str, Any]]:
        assert path == places.USER_SOCKET
        name = method.rpartition(".")[2]
        described = INTERFACE.methods[name]
        assert INTERFACE.misfit(described.takes, parameters) is None
        self.asked.add(name)
        reply = {}
        for field, kind in described.answers.fields.items():
            if field != "progress":
                answer = kind.of if isinstance(kind, Maybe) else kind
                reply[field] = sample(answer, is_full=self._is_full)
        yield {**reply, "descriptors": [3, 4, 5]}


def asked_by(verb: verbs.Verb, form: verbs.Form, monkeypatch: pytest.MonkeyPatch, *, is_full: bool) -> set[str]:
    """The methods that a line of this form asks for on a terminal, where every question gets a yes."""
    daemon = Daemon(is_full=is_full)
    monkeypatch.setattr(session.protocol, "call", daemon.call)
    for module, name, value in (
        (streams, "relay_terminal", None),
        (streams, "relay_streams", None),
        (streams, "relay_connection", None),
        (logins, "end", None),
        (logins, "of_user", []),
        (keys, "_read_key", "ssh-ed25519 AAAA"),
    ):
        monkeypatch.setattr(module, name, lambda *_, value=value: value)
    said: list[str] = []
    terminal = SimpleNamespace(
        is_interactive=True, style=Style(colour=False), kind="xterm", is_quiet=False, say=said.append,
        complain=said.append, progress=said.append, end_progress=lambda: None, confirm=lambda _: True,
    )  # fmt: skip
    login = session.Session(terminal)  # type: ignore[arg-type]
    if verb.name == "enter":
        form = verbs.Form("", "COMMAND...", "root")  # without a command it wants a real terminal
    actions.run(login, verbs.parse(line(verb, form, is_full=is_full)))
    return daemon.asked


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize(("verb", "form"), FORMS, ids=[f"{verb.name} {form.action}" for verb, form in FORMS])
def test_each_form_asks_for_what_the_interface_has_and_shows_what_it_may_answer(
    verb: verbs.Verb, form: verbs.Form, *, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_by(verb, form, monkeypatch, is_full=is_full) <= METHODS


def test_there_is_no_method_that_no_verb_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {name for verb, form in FORMS for name in asked_by(verb, form, monkeypatch, is_full=True)}
    assert asked == METHODS


def test_each_verb_but_the_end_of_the_menu_has_an_action() -> None:
    assert set(actions.ACTIONS) == set(verbs.BY_NAME) - {"quit"}
