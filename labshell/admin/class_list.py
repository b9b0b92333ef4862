"""A class list: which column of a table is which setting, what its cells mean, and every fault in it. Pure."""

from __future__ import annotations

import datetime
import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from labshell.admin import tables
from labshell.errors import UsageError
from labshell.model import settings
from labshell.model.names import checked_name
from labshell.model.settings import DESKTOP_PORT, NONE, PROFILE, SETTINGS

NEEDED = ("name", "key")
COLUMNS = (*NEEDED, "template", "port", PROFILE, *SETTINGS)
# The usual headers, without blanks and punctuation. Of two columns that mean the same, the one earlier here counts.
HEADERS = {
    "name": "username loginname login account accountname user 用户名 用户 账号 帐号 账户 登录名 "
            "benutzername benutzer benutzerkennung kennung anmeldename name 姓名",
    "key": "key publickey sshkey sshpublickey pubkey keyfile publickeyfile 公钥 ssh公钥 公钥文件 密钥 ssh密钥 "
           "schlüssel öffentlicherschlüssel sshschlüssel schlüsseldatei",
    "template": "template 模板 vorlage",
    "port": "port sshport 端口 ssh端口 端口号",
    PROFILE: "profile profil 方案 配置方案",
    "cpu": "cpu cpus cores cpucores processors vcpu vcpus 核数 cpu核数 cpu数 处理器 kerne cpukerne prozessoren",
    "memory": "memory ram mem 内存 内存大小 arbeitsspeicher speicher hauptspeicher",
    "disk": "disk diskspace disksize storage 磁盘 硬盘 磁盘空间 硬盘空间 festplatte plattenplatz",
    "processes": "processes 进程 进程数 prozesse",
    "gpus": "gpus gpu 显卡 grafikkarten grafikkarte",
    "mounts": "mounts mount 挂载 挂载目录",
    "nesting": "nesting docker 嵌套",
    DESKTOP_PORT: "desktopport 桌面端口 远程桌面端口",
    "expires": "expires expiry expirydate expirationdate expiration expireson validuntil enddate until "
               "到期 到期日 到期日期 有效期 有效期至 截止日期 失效日期 ablauf ablaufdatum gültigbis läuftab",
}  # fmt: skip
HEADER_UNIT = re.compile(r"(.*?)[(\[]\s*(.*?)\s*[)\]]$")
UNITS = {**{unit.lower(): unit for unit in ("MiB", "GiB", "TiB", "MB", "GB", "TB")},
         "m": "MiB", "g": "GiB", "t": "TiB", "mi": "MiB", "gi": "GiB", "ti": "TiB"}  # fmt: skip
SMALLER = {"TiB": ("GiB", 1024), "GiB": ("MiB", 1024), "TB": ("GB", 1000), "GB": ("MB", 1000)}
SIZE = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,2}))?\s*([a-z]*)", re.ASCII | re.IGNORECASE)
WHOLE = re.compile(r"([0-9]{1,7})(?:[.,]0{1,2})?", re.ASCII)
CORES = re.compile(r"(.*?)\s*(?:v?cpus?|cores?|processors?|核|kerne?)", re.IGNORECASE)
MIDNIGHT = re.compile(r"[ T]0?0:00(:00(\.0+)?)?$")
YEAR_FIRST = re.compile(r"([0-9]{4})\s*[-/.年]\s*([0-9]{1,2})\s*[-/.月]\s*([0-9]{1,2})\s*日?", re.ASCII)
DAY_FIRST = re.compile(r"([0-9]{1,2})\.\s*([0-9]{1,2})\.\s*([0-9]{4})", re.ASCII)
EITHER = re.compile(r"([0-9]{1,2})[/-]([0-9]{1,2})[/-]([0-9]{4})", re.ASCII)
YES = frozenset(("yes", "y", "true", "ja", "wahr", "是", "有", "1"))
NO = frozenset(("no", "n", "false", "nein", "falsch", "否", "0"))
NUMBERS = ("port", "processes", DESKTOP_PORT)
SIZES = ("memory", "disk")
SEARCHED = 10  # rows in which the header is looked for: a title may stand above it


@dataclass(frozen=True)
class Fault:
    """What is wrong with a cell; `column` is empty if it is the row."""

    column: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.column}: {self.sentence}" if self.column else self.sentence


@dataclass
class Row:
    """One user as the file has them; `number` is the line."""

    number: int
    values: dict[str, str]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.values.get("name", "")


@dataclass
class ClassList:
    """The rows of a table, and what of it was not read, as sentences."""

    rows: list[Row]
    notices: list[str]


@dataclass(frozen=True)
class _Column:
    place: int
    name: str
    unit: str = ""


def read(content: bytes, path: object, today: datetime.date) -> ClassList:
    """The table in a file's bytes, with every fault of each row; UsageError if it is no table of users."""
    found, header = _table(tables.decode(content, path), path)
    columns, ignored = _columns(header)
    notices = [f"Not read: line {line.number}, above the header." for line in found if line.number < header.number]
    if ignored:
        notices.append("Columns that were not read: " + ", ".join(map(_with_likeness, ignored)) + ".")
    width = len(header.cells or ())
    rows = [_row(line, columns, width, today) for line in found if line.number > header.number]
    _compare_names(rows)
    return ClassList(rows, notices)


def _table(text: str, path: object) -> tuple[list[tables.Line], tables.Line]:
    """The rows, with the separator that makes a header of one of the first, and that header."""
    found: list[tables.Line] = []
    for separator in tables.SEPARATORS:
        lines = list(tables.lines(text, separator))
        for line in lines[:SEARCHED]:
            if {name for _, name in _meanings(line)} >= set(NEEDED):
                return lines, line
        if not found or (lines and len(lines[0].cells or ()) > len(found[0].cells or ())):
            found = lines
    raise _no_header(path, found)


def _no_header(path: object, found: list[tables.Line]) -> UsageError:
    first = found[0] if found else tables.Line(1, [])
    if first.cells is None:
        return UsageError(
            "table-quotes-unbalanced",
            "{path}, line {line}: the quotation marks do not match.",
            path=path,
            line=first.number,
        )
    there = {name for _, name in _meanings(first)}
    return UsageError(
        "table-column-missing",
        "{path}: there is no column {missing}; the first line names {named}. Known are: {known}",
        path=path,
        missing=", ".join(name for name in NEEDED if name not in there),
        named=", ".join(filter(None, first.cells)) or "none",
        known=", ".join(COLUMNS),
    )


def _plain(header: str) -> tuple[str, str]:
    """A header without its capitals, blanks and punctuation, and the unit that it names."""
    text, unit = unicodedata.normalize("NFKC", header).casefold().strip(), ""
    if match := HEADER_UNIT.fullmatch(text):
        text, unit = match[1], UNITS.get(match[2], "")
    return "".join(letter for letter in text if letter.isalnum()), unit


def _meanings(line: tables.Line) -> list[tuple[_Column, str]]:
    """The columns of a header that are known, and what each is."""
    known = []
    for place, cell in enumerate(line.cells or ()):
        plain, unit = _plain(cell)
        for name, headers in HEADERS.items():
            if plain in headers.casefold().split():
                known.append((_Column(place, name, unit), name))
    return known


def _columns(header: tables.Line) -> tuple[list[_Column], list[str]]:
    """The columns that are read, and the headers of those that are not."""
    cells = header.cells or []
    chosen: dict[str, _Column] = {}
    for column, name in _meanings(header):
        order = HEADERS[name].casefold().split()
        rank = order.index(_plain(cells[column.place])[0])
        if name not in chosen or rank < order.index(_plain(cells[chosen[name].place])[0]):
            chosen[name] = column
    read_places = {column.place for column in chosen.values()}
    return list(chosen.values()), [cell for place, cell in enumerate(cells) if cell and place not in read_places]


def _with_likeness(header: str) -> str:
    """A header that is not read, with the column that was perhaps meant."""
    near = difflib.get_close_matches(_plain(header)[0], [*COLUMNS], n=1, cutoff=0.75)
    return f"{header} (did you mean {near[0]}?)" if near and near[0] != _plain(header)[0] else header


def _row(line: tables.Line, columns: list[_Column], width: int, today: datetime.date) -> Row:
    if line.cells is None:
        return Row(line.number, {}, [Fault("", "the quotation marks do not match.")])
    row = Row(line.number, {})
    if any(line.cells[width:]):
        row.faults.append(
            Fault("", "there are more cells than the header has; put a cell with a separator in it in quotes.")
        )
    for column in columns:
        text = line.cells[column.place] if column.place < len(line.cells) else ""
        try:
            row.values[column.name] = _value(column, text, today)
        except UsageError as error:
            row.faults.append(Fault(column.name, str(error)))
            if column.name == "name":
                row.values["name"] = text
    return row


def _compare_names(rows: Iterable[Row]) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        if row.name in lines:
            row.faults.append(Fault("name", f"{row.name} is in the file twice, in line {lines[row.name]} before."))
        elif row.name:
            lines[row.name] = row.number


def compare_ports(rows: Iterable[Row], size: int) -> None:
    """Name every port whose block of `size` overlaps that of a row above."""
    taken: list[tuple[int, Row]] = []
    for row in rows:
        port = int(row.values.get("port") or 0)
        for other, holder in taken if port else ():
            if abs(other - port) < size:
                row.faults.append(
                    Fault("port", f"{port} overlaps the ports of {holder.name} in line {holder.number}.")
                )
                break
        if port:
            taken.append((port, row))


def compare_keys(keys: Iterable[tuple[Row, object]]) -> None:
    """Warn of a key that an earlier row has, too: probably a mistake in copying."""
    first: dict[object, Row] = {}
    for row, key in keys:
        holder = first.setdefault(key, row)
        if holder is not row:
            row.warnings.append(Fault("key", f"this is the key of {holder.name} in line {holder.number}, too."))


# Cells -------------------------------------------------------------------------------------------------


def _value(column: _Column, text: str, today: datetime.date) -> str:
    """A cell in labshell's own form; UsageError says what to write instead."""
    name = column.name
    if name == "name":
        return checked_name(text)
    if not text:
        if name == "key":
            raise UsageError("table-cell-empty", "it is empty.")
        return ""
    if name in ("key", "template", PROFILE, "mounts"):
        return text
    text = unicodedata.normalize("NFKC", text).strip()
    if text.casefold() == NONE and name not in ("nesting", "port"):
        return NONE
    read_as: dict[str, Callable[[str], str]] = {
        **dict.fromkeys(SIZES, lambda cell: _size(cell, column.unit)),
        **dict.fromkeys(NUMBERS, _number),
        "cpu": _cpu,
        "nesting": _yes_or_no,
        "gpus": _gpus,
        "expires": lambda cell: _date(cell, today),
    }
    value = read_as[name](text)
    if name == "port":
        if not (value.isascii() and value.isdigit()):
            raise UsageError("table-port-invalid", "{port} is not a port number.", port=value)
        return value
    try:
        return settings.checked({name: value})[name]
    except UsageError:
        raise UsageError(
            "table-value-invalid",
            "{text} is not possible: write {example}.",
            text=text,
            example=SETTINGS[name].example,
        ) from None


def _number(text: str) -> str:
    match = WHOLE.fullmatch(text)
    return str(int(match[1])) if match else text


def _cpu(text: str) -> str:
    if match := CORES.fullmatch(text):
        text = match[1]
    return _number(text.replace("\u2013", "-").replace(" ", ""))


def _size(text: str, unit: str) -> str:
    match = SIZE.fullmatch(text)
    if match is None:
        return text
    given = match[3].casefold()
    unit = UNITS.get(given, "") if given else unit
    if not unit:
        if given:
            return text
        raise UsageError("table-unit-missing", "{text} has no unit: write {text}GiB or {text}MiB.", text=text)
    amount = Decimal(f"{match[1]}.{match[2] or 0}")
    while amount != int(amount) and unit in SMALLER:
        unit, factor = SMALLER[unit]
        amount *= factor
    return f"{int(amount)}{unit}" if amount == int(amount) else text


def _yes_or_no(text: str) -> str:
    word = text.casefold()
    return "yes" if word in YES else "no" if word in NO else text


def _gpus(text: str) -> str:
    if text.casefold() == "all":
        return "all"
    return ",".join(filter(None, re.split(r"[\s,;、]+", text)))


def _date(text: str, today: datetime.date) -> str:
    day = _day(MIDNIGHT.sub("", text))
    if day is None:
        return text
    if day < today:
        raise UsageError("table-day-over", "{day} is over.", day=day)
    return day.isoformat()


def _day(text: str) -> datetime.date | None:
    """The day that a cell means; UsageError if it may be two."""
    if match := YEAR_FIRST.fullmatch(text):
        year, month, day = map(int, match.groups())
    elif match := DAY_FIRST.fullmatch(text):
        day, month, year = map(int, match.groups())
    elif match := EITHER.fullmatch(text):
        month, day, year = map(int, match.groups())
        if month != day and month <= 12 and day <= 12:
            raise UsageError("table-day-ambiguous", "{text} may be two days: write it as 2031-09-30.", text=text)
        if month > 12:
            day, month = month, day
    else:
        return settings.date_of(text)
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None
