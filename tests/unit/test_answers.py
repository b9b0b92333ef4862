"""What labshell-admin makes of the daemon's answers: held against the interface first, flat as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pytest
from refusals import refused

from labshell import remedies
from labshell.admin import answers, services, this_host
from labshell.errors import LabshellError
from labshell.wire import protocol

CHANGES = {"remove": [], "add": [{"port": 20000, "user": "alice", "to": "10.83.0.2:22"}]}


def daemon(monkeypatch: pytest.MonkeyPatch, *replies: dict[str, Any]) -> None:
    def call(path: str, method: str, parameters: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        yield from replies

    monkeypatch.setattr(protocol, "call", call)


@pytest.mark.parametrize(
    "reply",
    [
        {"result": {"users": []}},  # as it was once
        {"result": {**CHANGES, "kept": []}},
        {"result": {"add": []}},
        {"result": {"remove": [], "add": [{"port": "20000", "user": "alice", "to": "10.83.0.2:22"}]}},
        {"changes": CHANGES},
        {"result": None},
        {},
    ],
)
def test_an_answer_of_another_version_is_one_sentence_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any]
) -> None:
    daemon(monkeypatch, {}, reply)
    with refused(LabshellError, "daemon-outdated") as caught:
        this_host.reconcile(argparse.Namespace(plan=False, json=True))
    assert remedies.of(caught.value) == "systemctl restart labshelld"


def test_signs_of_life_and_progress_come_before_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    daemon(monkeypatch, {"progress": {"sentence": "Look at {what}", "values": {"what": "it"}}}, {}, {"result": CHANGES})
    assert answers.ask("Reconcile", {"plan": True}, said.append) == CHANGES
    assert said == ["Look at it"]


def test_json_has_the_fields_of_a_structure_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = {"service": "web", "state": "running", "address": None, "forwards": ["80:80"], "autostart": True}
    plan = {"service": "web", "address": "", "forwards": [], "autostart": True, "template": "base", "settings": {"cpu": "1"}}
    options = argparse.Namespace(
        name="web", forward=[], template=None, autostart=True, dry_run=False, json=True, mount=None, profile=None
    )
    for result, printed in (
        ({"service": service}, service),
        ({"plan": plan, "would": ["Would do it."]}, {**plan, "would": ["Would do it."]}),
    ):
        daemon(monkeypatch, {"result": result})
        services.add_service(options)
        assert capsys.readouterr().out == json.dumps(printed, indent=2) + "\n"


def test_a_change_is_printed_with_its_options_beside_what_every_change_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"time": "2026-11-27T17:58:52Z", "who": "root", "verb": "set", "subject": "alice"}
    daemon(monkeypatch, {"result": [{**about, "given": {"memory": "8GiB"}, "result": "done"}]})
    this_host.show_log(argparse.Namespace(count=1, errors=False, json=True))
    assert json.loads(capsys.readouterr().out) == [{**about, "memory": "8GiB", "result": "done"}]
