"""Text from any usual program: which encoding bytes are in. Pure; standard library only, for the login shell too."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
UNIT_BYTES = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}


def decoded(content: bytes) -> str:
    """The most probable text in `content`; as Latin-1, which every byte fits, if it is in no known encoding."""
    return next(possible(content), content.decode("latin-1"))


def possible(content: bytes) -> Iterator[str]:
    """The texts that `content` may be, the most probable first, without a byte order mark."""
    for coding in _codings(content):
        whole = len(content) - len(content) % UNIT_BYTES.get(coding, 1)
        try:
            yield content[:whole].decode(coding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue


def _codings(content: bytes) -> list[str]:
    """The codings that `content` may have, the most probable first."""
    for mark, coding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return [coding, "gb18030"] if coding == "utf-8" else [coding]
    if b"\0" in content:
        little = content[1::2].count(0) >= content[::2].count(0)
        return ["utf-16-le"] if little else ["utf-16-be"]
    return ["utf-8", *(["gb18030", "cp1252"] if _is_chinese(content) else ["cp1252", "gb18030"])]


def _is_chinese(content: bytes) -> bool:
    """Whether the bytes above ASCII come in pairs as GB18030 has them for usual characters, and not singly."""
    usual = rare = single = position = 0
    while position < len(content):
        lead, trail = content[position], content[position + 1] if position + 1 < len(content) else 0
        if lead < 0x80:
            position += 1
        elif lead in range(0xA1, 0xFF) and trail >= 0xA1:
            usual += lead in range(0xA1, 0xD8)
            rare += lead >= 0xD8
            position += 2
        else:
            single += 1
            position += 1 if trail < 0x40 else 2
    return usual > 0 and usual + rare > single
