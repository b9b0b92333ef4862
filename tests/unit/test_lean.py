"""The login shell's JSON is json's."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import labshell.wire
from labshell.wire import lean

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(scope="module", params=["CPython's parts", "the modules themselves"])
def either(request: pytest.FixtureRequest) -> ModuleType:
    """lean as it is here, and as it is where the interpreter has no such parts."""
    if request.param == "CPython's parts":
        assert hasattr(lean, "_scan")
        return lean
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "_json", None)
        patch.delitem(sys.modules, "labshell.wire.lean")
        patch.setattr(labshell.wire, "lean", lean)
        patched = importlib.import_module("labshell.wire.lean")
        assert not hasattr(patched, "_scan")
    return patched


@given(value=VALUES)
def test_what_is_written_is_read_again_as_json_would(either: ModuleType, value: object) -> None:
    text = either.dumps(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert either.loads(text) == json.loads(text) == value


@pytest.mark.parametrize("text", ["", "{", "nul", "1 2", '{"a":1}x', '{"a":}', "[1,]", '"\\ud8', "'a'"])
def test_what_is_no_json_is_a_value_error(either: ModuleType, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the contract is the class
        either.loads(text)


def test_what_json_has_not_is_a_type_error(either: ModuleType) -> None:
    with pytest.raises(TypeError):
        either.dumps({"a": object()})
