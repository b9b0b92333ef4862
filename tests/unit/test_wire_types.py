"""The `.varlink` files, read: by Varlink's own parser in the same way, and as the types of Python that stand for them."""

from __future__ import annotations

import types
from pathlib import Path
from types import ModuleType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
import varlink.scanner as standard
from typing_extensions import NotRequired

from labshell.wire import admin, description, gateway, protocol
from labshell.wire.description import Array, Kind, Map, Maybe, Named, Struct

MODULES = {protocol.GATEWAY: gateway, protocol.ADMIN: admin}
BASES = {"ContainerReport"}  # what two types have in common
SMALL = """
interface a.b
type T (n: int, maybe: ?[]string, of: [string]U)  # a comment
type U (yes: bool, share: float)
method M(t: T) -> (u: ?U)
error E (why: string)
"""


def classes(module: ModuleType) -> dict[str, Any]:
    found = {name: item for name, item in vars(module).items() if is_typeddict(item)}
    return {name: found[name] for name in found.keys() - BASES}


def kind_of(hint: Any) -> Kind:
    """A type of Python as one of the interface: what may be None or missing has a "?" there."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        inner = kind_of(arguments[0])
        return inner if isinstance(inner, Maybe) else Maybe(inner)
    if origin in (Union, types.UnionType):
        (one,) = (argument for argument in arguments if argument is not type(None))
        assert len(arguments) == 2
        return Maybe(kind_of(one))
    if origin is list:
        return Array(kind_of(*arguments))
    if origin is dict:
        assert arguments[0] is str
        return Map(kind_of(arguments[1]))
    return Named(hint.__name__) if is_typeddict(hint) else hint


def standard_kind(kind: Any) -> Kind:
    """A type as Varlink's own library reads it."""
    wrappers = {standard._Maybe: Maybe, standard._Array: Array, standard._Dict: Map}
    if type(kind) in wrappers:
        return wrappers[type(kind)](standard_kind(kind.element_type))
    if isinstance(kind, standard._Struct):
        return Struct({name: standard_kind(field) for name, field in kind.fields.items()})
    if isinstance(kind, standard._CustomType):
        return Named(kind.name)
    assert type(kind) in (bool, int, float, str)
    return type(kind)


@pytest.mark.parametrize("name", sorted(path.stem for path in description.FOLDER.glob("*.varlink")))
def test_a_file_is_read_as_varlinks_own_library_reads_it(name: str) -> None:
    found = description.load(name)
    members = standard.Interface(found.text).members.values()
    methods = {member.name: member for member in members if isinstance(member, standard._Method)}
    others = {member.name: standard_kind(member.type) for member in members if member.name not in methods}
    assert found.name == name
    assert {**found.types, **found.errors} == others
    assert {item: method.takes for item, method in found.methods.items()} == {
        item: standard_kind(method.in_type) for item, method in methods.items()
    }
    assert {item: method.answers for item, method in found.methods.items()} == {
        item: standard_kind(method.out_type) for item, method in methods.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_type_has_a_class_of_its_name_and_no_class_is_without_a_type(name: str) -> None:
    assert sorted(classes(MODULES[name])) == sorted(description.load(name).types)


@pytest.mark.parametrize(
    ("name", "item"), [(name, item) for name, module in MODULES.items() for item in sorted(classes(module))]
)
def test_a_class_has_the_fields_of_its_type(name: str, item: str) -> None:
    hints = get_type_hints(classes(MODULES[name])[item], localns={"NotRequired": NotRequired}, include_extras=True)
    fields = {field: kind_of(hint) for field, hint in hints.items()}
    assert [*fields.items()] == [*description.load(name).types[item].fields.items()]


def test_the_administrators_user_is_described_as_the_report_is() -> None:
    report, user = description.load(protocol.GATEWAY).types["Report"], description.load(protocol.ADMIN).types["User"]
    assert {**report.fields, **user.fields} == {**user.fields, "notice": Maybe(Named("Progress"))}


@pytest.mark.parametrize("name", MODULES)
def test_every_method_answers_with_progress_and_what_may_be_missing_meanwhile(name: str) -> None:
    for method in description.load(name).methods.values():
        assert method.answers.fields["progress"] == Maybe(Named("Progress"))
        assert all(isinstance(kind, Maybe) for kind in method.answers.fields.values())
        assert len(method.answers.fields) > 1


GOOD: dict[str, Any] = {"n": 1, "maybe": ["a"], "of": {"x": {"yes": True, "share": 0.5}}}


@pytest.mark.parametrize(
    ("changed", "misfit"),
    [
        ({}, None),
        ({"maybe": None}, None),
        ({"maybe": []}, None),
        ({"of": {}}, None),
        ({"n": None}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": "1"}, "n"),
        ({"maybe": "a"}, "maybe"),
        ({"maybe": ["a", None]}, "maybe"),
        ({"maybe": ("a",)}, "maybe"),
        ({"of": None}, "of"),
        ({"of": []}, "of"),
        ({"of": {"x": None}}, "of"),
        ({"of": {"x": {"yes": 1, "share": 0.5}}}, "yes"),
        ({"of": {"x": {"yes": True, "share": 1}}}, "share"),
        ({"of": {"x": {"yes": True}}}, "share"),
        ({"of": {"x": {"yes": True, "share": 0.5, "more": 1}}}, "more"),
        ({"else": 1}, "else"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(changed: dict[str, Any], misfit: str | None) -> None:
    interface = description.parse(SMALL)
    assert interface.misfit(interface.methods["M"].takes, {"t": {**GOOD, **changed}}) == misfit


def test_what_is_no_structure_at_all_does_not_fit() -> None:
    interface = description.parse(SMALL)
    for value in (None, [], "", 1):
        assert interface.misfit(interface.types["T"], value) == ""
    missing = {name: GOOD[name] for name in ("n", "of")}
    assert interface.misfit(interface.types["T"], missing) is None
    assert interface.misfit(interface.types["T"], {"n": 1}) == "of"


@pytest.mark.parametrize(
    "text",
    ["", "interfaces a.b", "interface a.b x", "interface a.b type T", "interface a.b type T (n int)", "interface a.b type T (n: object)",
     "interface a.b type T (n: int", "interface a.b type T (n: int u: int)", "interface a.b method M() (n: int)", "interface a.b type T (n: ?)"],
)  # fmt: skip
def test_what_is_no_description_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        description.parse(text)


def test_the_folder_has_the_interfaces_and_no_other_file_of_that_kind() -> None:
    assert {path.stem for path in Path(description.FOLDER).glob("*.varlink")} == {*MODULES, "org.varlink.service"}
