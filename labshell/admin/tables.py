"""Tables as spreadsheet programs write them: text in any of their codings, with any of their separators. Pure."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from labshell import texts
from labshell.errors import UsageError

SEPARATORS = (",", ";", "\t", "\uff0c", "\uff1b", "|")
FULL_WIDTH = {"\uff0c": ",", ",": "\uff0c", "\uff1b": ";", ";": "\uff1b"}  # the comma and the semicolon
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
SEPARATOR_LINE = "sep="  # Excel's own first line that names the separator
SAVE = 'save it as "CSV UTF-8" and import that file'
WORKBOOKS = {
    b"PK\x03\x04": "an Excel workbook",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook",
    b"%PDF": "a PDF file",
    b"{\\rtf": "a word processor's file",
    b"<": "a web page or XML",
}
OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument"
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))


@dataclass(frozen=True)
class Line:
    """One row of a table: where it begins in the file, and its cells; None if they cannot be told apart."""

    number: int
    cells: list[str] | None


def decode(content: bytes, path: object) -> str:
    """The text of a file; UsageError with the way to save it if it is a workbook or no text."""
    for magic, kind in WORKBOOKS.items():
        if content.lstrip().startswith(magic):
            kind = "an OpenDocument spreadsheet" if OPEN_DOCUMENT in content[:128] else kind
            raise UsageError(
                "table-not-csv", "{path} is {kind}, not a CSV file: {save}.", path=path, kind=kind, save=SAVE
            )
    for text in texts.possible(content):
        if not any(unicodedata.category(letter) == "Cc" and letter not in "\t\n\r\v\f\x85" for letter in set(text)):
            return text
    raise UsageError(
        "table-encoding-unknown", "{path} is not text in a coding that is known: {save}.", path=path, save=SAVE
    )


def lines(text: str, separator: str) -> Iterator[Line]:
    """The rows that hold anything. A row whose quotation marks do not match takes none of the next ones with it."""
    rows = LINE.findall(text)
    start = 0
    if rows and rows[0].strip().strip('"').lower().startswith(SEPARATOR_LINE):
        start, separator = 1, rows[0].strip().strip('"')[len(SEPARATOR_LINE) :][:1] or "\t"
    while start < len(rows):
        begin = start
        reader = csv.reader((rows[place] for place in range(begin, len(rows))), delimiter=separator, strict=True,
                            skipinitialspace=True)  # fmt: skip
        try:
            cells = [clean(cell) for cell in next(reader)]
            start += reader.line_num
        except csv.Error:
            yield Line(begin + 1, None)
            start += 1
            continue
        if len(cells) == 1 and separator in FULL_WIDTH:
            cells = [clean(cell) for cell in cells[0].split(FULL_WIDTH[separator])]
        if any(cells):
            yield Line(begin + 1, cells)


def clean(cell: str) -> str:
    """A cell without the blanks and invisible characters that copying brings along."""
    return cell.replace("\u00a0", " ").replace("\u3000", " ").translate(INVISIBLE).strip()
