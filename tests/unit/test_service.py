"""The two interfaces: every parameter and every answer checked, every end one reply."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from labshell.daemon.administration import AdminInterface
from labshell.daemon.calls import Answer, Call, error_reply
from labshell.daemon.interfaces import GatewayInterface
from labshell.daemon.service import Service
from labshell.errors import KINDS, LabshellError, TryAgain
from labshell.model.access import Caller
from labshell.operations.steps import Progress
from labshell.wire import description, protocol

ALICE = Call(Caller(30000, "alice", frozenset({"labshell"})))
INTERFACES = {"org.labshell.Gateway": GatewayInterface, "org.labshell.Admin": AdminInterface}


class Fake:
    """A handler that does what a test wants."""

    def __init__(self, *steps: Progress, answer: Any = None, error: Exception | None = None) -> None:
        self.steps = steps
        self.end = {"status": None} if answer is None else answer
        self.error = error
        self.calls: list[tuple[Any, ...]] = []

    def Stop(self, call: Call, force: bool) -> Answer:  # noqa: N802, FBT001 - as the interface has it
        self.calls.append((force, call.wants_more, call))
        if self.error:
            raise self.error
        yield from self.steps
        return self.end


class Failing:
    """A handler whose status ends in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def Status(self, _: Call) -> None:  # noqa: N802 - as the interface has it
        raise self.error

    List = Status


def ask(handler: Fake, message: object) -> list[dict[str, Any]]:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return [json.loads(reply.rstrip(b"\0")) for reply in Service(protocol.GATEWAY, handler).answer(raw, ALICE)]


def stop(**parameters: object) -> dict[str, object]:
    return {"method": "org.labshell.Gateway.Stop", "parameters": parameters, "more": True}


@pytest.mark.parametrize("name", INTERFACES)
def test_description_and_code_have_the_same_methods_and_no_name_twice(name: str) -> None:
    interface = description.load(name)
    handled = {item for item in vars(INTERFACES[name]) if item[0].isupper()}
    assert interface.methods.keys() == handled
    declared = [
        line.split()[1].split("(")[0]
        for line in interface.text.splitlines()
        if line.split(" ")[0] in ("type", "method", "error")
    ]
    assert len(declared) == len(set(declared))


def test_no_method_for_researchers_takes_a_name() -> None:
    methods = description.load("org.labshell.Gateway").methods.values()
    taken = {field for method in methods for field in method.takes.fields}
    assert "force" in taken
    assert not taken & {"user", "uid", "container", "owner", "address"}


def test_progress_and_answer_are_passed_on_with_the_caller() -> None:
    handler = Fake(Progress("s", {"a": "b"}))
    assert ask(handler, stop(force=True)) == [
        {"parameters": {"progress": {"sentence": "s", "values": {"a": "b"}}}, "continues": True},
        {"parameters": {}, "continues": False},
    ]
    assert ask(handler, {**stop(force=False), "more": False}) == [{"parameters": {}, "continues": False}]
    assert handler.calls == [(True, True, ALICE), (False, False, ALICE)]


@pytest.mark.parametrize("answer", [{"status": 1}, {"report": None}, {"status": {"user": "alice"}}, {"progress": {"sentence": "s"}}, []])
def test_an_answer_that_the_interface_does_not_describe_is_a_bug(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        (reply,) = ask(Fake(answer=answer), stop(force=True))
    assert reply["error"] == "org.labshell.Gateway.Failed"
    assert reply["parameters"]["id"] == "bug-in-daemon"
    (record,) = caplog.records
    assert vars(record)["reference"] == reply["parameters"]["values"]["reference"]
    assert "Stop" in str(record.exc_info and record.exc_info[1])


@pytest.mark.parametrize(
    "message",
    [stop(), stop(force=1), stop(force="yes"), stop(force=None), stop(force=True, user="bob"), {"method": "org.labshell.Gateway.None"},
     {"method": "org.labshell.Admin.List"}, {"method": "x"}, b"garbage", {"method": "org.labshell.Gateway.calls"}, {"method": "org.labshell.Gateway.__init__"}],
)  # fmt: skip
def test_a_call_that_the_interface_does_not_describe_reaches_nobody(message: object) -> None:
    handler = Fake()
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
    interface = description.load(protocol.GATEWAY)
    sent = json.loads(error_reply(kind("user-missing", "There is no user {name}.", name="x"), to_root=to_root)[:-1])
    assert interface.misfit(interface.errors[sent["error"].rpartition(".")[2]], sent["parameters"]) is None


def test_a_bug_becomes_a_reference_and_no_trace() -> None:
    replies = ask(Fake(error=ZeroDivisionError("secret /path")), stop(force=False))
    assert replies[0]["error"] == "org.labshell.Gateway.Failed"
    assert "secret" not in json.dumps(replies)
    assert len(replies[0]["parameters"]["values"]["reference"]) == 8


def test_a_value_error_in_a_verb_is_a_bug_of_ours_and_no_fault_of_the_request() -> None:
    (reply,) = ask(Fake(error=ValueError("not a number")), stop(force=False))
    assert reply["parameters"]["id"] == "bug-in-daemon"


def test_the_service_describes_itself() -> None:
    about = ask(Fake(), {"method": "org.varlink.service.GetInfo"})[0]["parameters"]
    assert (about["vendor"], about["product"]) == ("labshell", "labshelld")
    assert about["interfaces"] == ["org.varlink.service", "org.labshell.Gateway"]
    request = {
        "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": {"interface": "org.labshell.Gateway"},
    }
    assert "method Status()" in ask(Fake(), request)[0]["parameters"]["description"]
