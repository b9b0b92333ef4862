"""The two interfaces: every parameter checked, every end one reply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import varlink.scanner

import labshell
from labshell.daemon.administration import AdminInterface
from labshell.daemon.calls import Call, error_reply
from labshell.daemon.interfaces import GatewayInterface
from labshell.daemon.service import Service
from labshell.errors import KINDS, LabshellError, TryAgain
from labshell.model.access import Caller
from labshell.wire import protocol

ALICE = Call(Caller(30000, "alice", frozenset({"labshell"})))
INTERFACES = {"org.labshell.Gateway": GatewayInterface, "org.labshell.Admin": AdminInterface}


def description(name: str) -> Any:
    return varlink.scanner.Interface((Path(labshell.__file__).parent / "wire" / f"{name}.varlink").read_text())


class Fake:
    """A handler that does what a test wants."""

    def __init__(self, *replies: dict[str, Any], error: Exception | None = None) -> None:
        self.replies = replies
        self.error = error
        self.calls: list[tuple[Any, ...]] = []

    def Stop(self, force: bool, _more: bool = False, _request: Call | None = None) -> Iterator[dict[str, Any]]:  # noqa: N802, FBT001, FBT002 - varlink's form
        self.calls.append((force, _more, _request))
        if self.error:
            raise self.error
        yield from self.replies


class Failing:
    """A handler whose status ends in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def Status(self, **_given: object) -> None:  # noqa: N802 - varlink's form
        raise self.error

    List = Status


def ask(handler: Fake, message: object) -> list[dict[str, Any]]:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return [json.loads(reply.rstrip(b"\0")) for reply in Service(protocol.GATEWAY, handler).answer(raw, ALICE)]


def stop(**parameters: object) -> dict[str, object]:
    return {"method": "org.labshell.Gateway.Stop", "parameters": parameters, "more": True}


@pytest.mark.parametrize("name", INTERFACES)
def test_description_and_code_have_the_same_methods_and_no_name_twice(name: str) -> None:
    interface = description(name)
    methods = {member.name for member in interface.members.values() if isinstance(member, varlink.scanner._Method)}
    handled = {item for item in vars(INTERFACES[name]) if item[0].isupper()}
    assert methods == handled
    text = (Path(labshell.__file__).parent / "wire" / f"{name}.varlink").read_text()
    declared = [
        line.split()[1].split("(")[0]
        for line in text.splitlines()
        if line.split(" ")[0] in ("type", "method", "error")
    ]
    assert len(declared) == len(set(declared))


def test_no_method_for_researchers_takes_a_name() -> None:
    members = description("org.labshell.Gateway").members.values()
    taken = {
        field for member in members if isinstance(member, varlink.scanner._Method) for field in member.in_type.fields
    }
    assert not taken & {"user", "uid", "container", "owner", "address"}


def test_progress_and_answer_are_passed_on_with_the_caller() -> None:
    handler = Fake(
        {"_continues": True, "progress": {"sentence": "s", "values": {}}}, {"_continues": False, "status": None}
    )
    replies = ask(handler, stop(force=True))
    assert replies[0]["continues"] is True
    assert handler.calls == [(True, True, ALICE)]


@pytest.mark.parametrize(
    "message",
    [stop(), stop(force=1), stop(force="yes"), stop(force=None), stop(force=True, user="bob"), {"method": "org.labshell.Gateway.None"},
     {"method": "org.labshell.Admin.List"}, {"method": "x"}, b"garbage", {"method": "org.labshell.Gateway.calls"}, {"method": "org.labshell.Gateway.__init__"}],
)  # fmt: skip
def test_a_call_that_the_interface_does_not_describe_reaches_nobody(message: object) -> None:
    handler = Fake({"_continues": False})
    replies = ask(handler, message)
    assert len(replies) == 1
    assert replies[0]["error"].startswith("org.varlink.service.")
    assert handler.calls == []


def test_a_known_error_keeps_its_kind_sentence_and_values() -> None:
    replies = ask(Fake(error=TryAgain("container-busy", "{name} is busy.", name="alice")), stop(force=False))
    assert replies == [
        {
            "error": "org.labshell.Gateway.TryAgain",
            "parameters": {"id": "container-busy", "sentence": "{name} is busy.", "values": {"name": "alice"}},
        }
    ]


@pytest.mark.parametrize(
    ("interface", "method", "detail", "remedy"),
    [(protocol.ADMIN, "List", "No device found", "lxc info alice --show-log"), (protocol.GATEWAY, "Status", None, None)],
)
def test_only_the_administrators_socket_carries_the_engines_own_words_and_the_remedy(
    interface: str, method: str, detail: str | None, remedy: str | None
) -> None:
    error = TryAgain("engine-refused", "{name} cannot start. Tell the administrator.", name="alice")
    error.detail = "No device found"
    service = Service(interface, Failing(error))
    message = json.dumps({"method": f"{interface}.{method}", "parameters": {}}).encode()
    (reply,) = (json.loads(part[:-1]) for part in service.answer(message, ALICE))
    assert reply["error"] == "org.labshell.Gateway.TryAgain"
    assert reply["parameters"]["id"] == "engine-refused"
    assert reply["parameters"].get("detail") == detail
    assert reply["parameters"].get("remedy") == remedy


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("to_root", [False, True])
def test_an_error_has_the_fields_that_the_interface_names(kind: type[LabshellError], *, to_root: bool) -> None:
    interface = description(protocol.GATEWAY)
    sent = json.loads(error_reply(kind("user-missing", "There is no user {name}.", name="x"), to_root=to_root)[:-1])
    fields = interface.members[sent["error"].rpartition(".")[2]].type.fields
    needed = {name for name, value in fields.items() if not isinstance(value, varlink.scanner._Maybe)}
    assert needed <= sent["parameters"].keys() <= fields.keys()


def test_a_bug_becomes_a_reference_and_no_trace() -> None:
    replies = ask(Fake(error=ZeroDivisionError("secret /path")), stop(force=False))
    assert replies[0]["error"] == "org.labshell.Gateway.Failed"
    assert "secret" not in json.dumps(replies)
    assert len(replies[0]["parameters"]["values"]["reference"]) == 8


def test_the_service_describes_itself() -> None:
    request = {
        "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": {"interface": "org.labshell.Gateway"},
    }
    assert "method Status()" in ask(Fake(), request)[0]["parameters"]["description"]
