"""The `.varlink` files as types, and values held against them: the same check for what is asked and what is answered.

The daemon and labshell-admin load this, the login shell does not. It reads as much of the language as our files
need: no enumerations, no foreign objects, every structure by its name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
BASIC = {"bool": bool, "int": int, "float": float, "string": str}
COMMENT = re.compile("#.*")
WORD = re.compile(r"->|\[string\]|\[\]|[\w.]+|\S")


@dataclass(frozen=True)
class Named:
    """A structure of the interface, by its name."""

    name: str


@dataclass(frozen=True)
class Maybe:
    """A value that may be null or absent: "?"."""

    of: Kind


@dataclass(frozen=True)
class Array:
    """Values of one type: "[]"."""

    of: Kind


@dataclass(frozen=True)
class Map:
    """Values of one type by names: "[string]"."""

    of: Kind


@dataclass(frozen=True)
class Struct:
    """Values by the names of their fields."""

    fields: Mapping[str, Kind]


@dataclass(frozen=True)
class Method:
    """What a method takes, and what each of its replies carries."""

    takes: Struct
    answers: Struct


Kind = type | Named | Maybe | Array | Map | Struct


@dataclass(frozen=True)
class Interface:
    """One interface: its text and what is described there."""

    name: str
    text: str
    types: Mapping[str, Struct]
    methods: Mapping[str, Method]
    errors: Mapping[str, Struct]

    def misfit(self, kind: Kind, value: object, name: str = "") -> str | None:
        """The name of the first field that is missing, unknown or of another type; None if the value fits.

        Stricter than JSON asks for: true is not 1, and a fraction is not rounded.
        """
        if type(value) is kind:
            return None
        if isinstance(kind, Maybe):
            return None if value is None else self.misfit(kind.of, value, name)
        if isinstance(kind, Named):
            kind = self.types[kind.name]
        parts: Iterable[tuple[Kind, object, str]]
        if isinstance(kind, Struct) and type(value) is dict:
            if not value.keys() <= kind.fields.keys():
                return str(min(value.keys() - kind.fields.keys()))
            parts = ((field, value.get(key), key) for key, field in kind.fields.items())
        elif isinstance(kind, Array) and type(value) is list:
            parts = ((kind.of, item, name) for item in value)
        elif isinstance(kind, Map) and type(value) is dict:
            parts = ((kind.of, item, name) for item in value.values())
        else:
            return name
        return next((found for part in parts if (found := self.misfit(*part)) is not None), None)


@functools.cache
def load(name: str) -> Interface:
    """The interface of that name, read once."""
    return parse((FOLDER / f"{name}.varlink").read_text(encoding="ascii"))


def parse(text: str) -> Interface:
    """The interface that a text describes; ValueError if it is none."""
    words = _Words(text)
    words.expect("interface")
    name = words.next()
    types: dict[str, Struct] = {}
    methods: dict[str, Method] = {}
    errors: dict[str, Struct] = {}
    while (what := words.next()) != _Words.END:
        member = words.next()
        if what == "type":
            types[member] = words.struct()
        elif what == "error":
            errors[member] = words.struct()
        elif what == "method":
            takes = words.struct()
            words.expect("->")
            methods[member] = Method(takes, words.struct())
        else:
            raise ValueError(f"{what} is no type, method or error")
    return Interface(name, text, types, methods, errors)


class _Words:
    """The words of a description, read one after the other."""

    END = ""

    def __init__(self, text: str) -> None:
        self._left = WORD.findall(COMMENT.sub("", text))[::-1]

    def next(self) -> str:
        return self._left.pop() if self._left else self.END

    def expect(self, *words: str) -> str:
        found = self.next()
        if found not in words:
            raise ValueError(f"{found} where {' or '.join(words)} is expected")
        return found

    def struct(self) -> Struct:
        fields: dict[str, Kind] = {}
        self.expect("(")
        end = name = self.next()
        while end != ")":
            self.expect(":")
            fields[name] = self.kind()
            end = self.expect(",", ")")
            name = self.next() if end == "," else end
        return Struct(fields)

    def kind(self) -> Kind:
        word = self.next()
        if word == "?":
            return Maybe(self.kind())
        if word == "[]":
            return Array(self.kind())
        if word == "[string]":
            return Map(self.kind())
        if word not in BASIC and not word[:1].isupper():
            raise ValueError(f"{word} is no type")
        return BASIC.get(word) or Named(word)
