"""Class lists in every form that spreadsheet programs write."""

from __future__ import annotations

import codecs
import datetime

import pytest

from labshell.admin import class_list
from labshell.admin.class_list import ClassList
from labshell.errors import UsageError

TODAY = datetime.date(2026, 11, 28)
TABLE = "name,key\r\nalice,alice.pub\r\nbob,bob.pub\r\n"


def read(content: bytes | str) -> ClassList:
    return class_list.read(content.encode() if isinstance(content, str) else content, "class.csv", TODAY)


def faults(content: bytes | str) -> list[list[str]]:
    return [[str(fault) for fault in row.faults] for row in read(content).rows]


def cell(header: str, text: str) -> str:
    """What a cell is read as, or the sentence of its fault."""
    row = read(f'name\tkey\t{header}\nalice\talice.pub\t"{text}"\n').rows[0]
    (place,) = [
        name for name in {*row.values, *(fault.column for fault in row.faults)} if name not in ("name", "key")
    ]
    return row.values.get(place) or row.faults[0].sentence


@pytest.mark.parametrize("separator", [",", ";", "\t", "，", "；", "|"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_a_table_in_any_coding_with_any_separator_is_read(separator: str, coding: str) -> None:
    rows = read(TABLE.replace(",", separator).encode(coding)).rows
    assert [row.values for row in rows] == [{"name": name, "key": f"{name}.pub"} for name in ("alice", "bob")]
    assert [row.number for row in rows] == [2, 3]


def test_utf_16_with_a_mark_may_be_big_endian_or_end_in_half_a_character() -> None:
    assert len(read(codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be")).rows) == 2
    assert len(read(codecs.BOM_UTF16_LE + TABLE.encode("utf-16-le") + b"\n").rows) == 2


@pytest.mark.parametrize(
    ("header", "value", "coding"),
    [
        ("备注", "一班", "gb18030"),
        ("姓名", "鲍勃", "gb18030"),
        ("Größe", "Müller", "cp1252"),
        ("Prénom", "Zoé", "cp1252"),
    ],
)
def test_chinese_and_western_codings_are_told_apart(header: str, value: str, coding: str) -> None:
    text = f"name;key;{header}\r\nalice;alice.pub;{value}\r\n"
    assert read(text.encode(coding)).notices == [f"Columns that were not read: {header}."]


@pytest.mark.parametrize(
    "header",
    [
        "Name,Key",
        "NAME , KEY",
        "Username,Public key",
        "用户名,公钥",
        "Benutzername,SSH-Schlüssel",
        "Login,ssh_public_key",
        "ｎａｍｅ,ｋｅｙ",
    ],
)
def test_usual_headers_are_known(header: str) -> None:
    assert read(f"{header}\nalice,alice.pub\n").rows[0].values == {"name": "alice", "key": "alice.pub"}


def test_a_column_of_real_names_beside_one_of_user_names_is_not_read() -> None:
    for header in ("学号,姓名,Name,Key", "No,Name,Username,Key"):
        found = read(f"{header}\n2026001,艾丽,alice,alice.pub\n")
        assert found.rows[0].values == {"name": "alice", "key": "alice.pub"}
        assert found.notices == [f"Columns that were not read: {', '.join(header.split(',')[:2])}."]


def test_a_column_that_is_nearly_known_is_named_with_what_was_perhaps_meant() -> None:
    assert read("name,key,memroy\n").notices == ["Columns that were not read: memroy (did you mean memory?)."]


def test_empty_columns_and_rows_and_a_title_are_no_fault() -> None:
    found = read("Class of 2026,,,\r\n,,,\r\nname,key,,\r\nalice,alice.pub,,\r\n,,,\r\n\r\nbob,bob.pub\r\n")
    assert [(row.number, row.name, row.faults) for row in found.rows] == [(4, "alice", []), (7, "bob", [])]
    assert found.notices == ["Not read: line 1, above the header."]


def test_excels_own_line_of_the_separator_is_no_row() -> None:
    assert [row.name for row in read("sep=;\r\nname;key\r\nalice;alice.pub\r\n").rows] == ["alice"]


def test_a_full_width_header_over_rows_with_commas_is_read() -> None:
    assert read("name，key\nalice,alice.pub\nbob，bob.pub\n").rows[0].values["key"] == "alice.pub"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04\x14\0", "an Excel workbook"),
        (b"PK\x03\x04\x14\0mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "an OpenDocument spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "an old Excel workbook"),
        (b"<html><table>", "a web page"),
        (b"\x81\x01\xff", "not text in a coding that is known"),
        (b"\x89PNG\r\n\x1a\n\xff", "not text in a coding that is known"),
    ],
)
def test_what_is_no_text_is_named_with_the_way_to_save_it(content: bytes, kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(content)
    assert kind in str(caught.value)
    assert 'save it as "CSV UTF-8"' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name,kye\n", "there is no column key; the first line names name, kye"),
        ("", "there is no column name, key; the first line names none"),
        ('"name,key\n', "line 1: the quotation marks do not match"),
    ],
)
def test_a_table_without_its_columns_is_one_sentence(content: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(content)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("header", "text", "value"),
    [
        ("memory", "8GB", "8GB"),
        ("memory", "8 GB", "8GB"),
        ("Memory", "8g", "8GiB"),
        ("RAM", "16 gib", "16GiB"),
        ("内存", "８ＧＢ", "8GB"),
        ("memory", "1.5 GiB", "1536MiB"),
        ("memory", "1,5GB", "1500MB"),
        ("Memory (GiB)", "8", "8GiB"),
        ("disk", "8.0 TB", "8TB"),
        ("disk", "None", "none"),
        ("cpu", "2.0", "2"),
        ("CPU", "2,0", "2"),
        ("cores", "4 cores", "4"),
        ("核数", "4核", "4"),
        ("cpu", "0 – 7", "0-7"),
        ("processes", "4096.0", "4096"),
        ("port", "22010.0", "22010"),
        ("nesting", "TRUE", "yes"),
        ("nesting", "WAHR", "yes"),
        ("nesting", "否", "no"),
        ("gpus", "ALL", "all"),
        ("gpus", "0000:01:00.0; 0000:02:00.0", "0000:01:00.0,0000:02:00.0"),
        ("expires", "2031/9/30", "2031-09-30"),
        ("expires", "2031-09-30 00:00:00", "2031-09-30"),
        ("expires", "2031年9月30日", "2031-09-30"),
        ("expires", "30.09.2031", "2031-09-30"),
        ("expires", "9/30/2031", "2031-09-30"),
        ("expires", "30/9/2031", "2031-09-30"),
        ("Ablaufdatum", "none", "none"),
        ("memory", "8", "8 has no unit: write 8GiB or 8MiB."),
        ("memory", "1.024 MB", "1.024 MB is not possible: write 64GiB."),
        ("memory", "lots", "lots is not possible: write 64GiB."),
        ("cpu", "two", "two is not possible: write 8, or 0-7."),
        ("cpu", "2.5", "2.5 is not possible: write 8, or 0-7."),
        ("port", "22,010", "22,010 is not a port number."),
        ("port", "-1", "-1 is not a port number."),
        ("expires", "2020-01-01", "2020-01-01 is over."),
        ("expires", "9/8/2031", "9/8/2031 may be two days: write it as 2031-09-30."),
        ("expires", "2031/2/30", "2031/2/30 is not possible: write 2027-09-30, or none."),
        ("nesting", "perhaps", "perhaps is not possible: write yes or no."),
    ],
)
def test_a_cell_is_read_where_it_can_mean_one_thing_only(header: str, text: str, value: str) -> None:
    assert cell(header, text) == value


def test_every_fault_of_every_row_is_found_with_its_column() -> None:
    table = "name,key,memory,cpu,expires\nCarol,,8,two,2020-01-01\nbob,bob.pub,8GB,2.0,2031/9/30\n"
    assert [[fault.column for fault in row.faults] for row in read(table).rows] == [
        ["name", "key", "memory", "cpu", "expires"],
        [],
    ]


@pytest.mark.parametrize(
    "bad", ['alice,"alice.pub', 'alice,"alice.pub"x', "alice,alice.pub,8", "Alice Smith,", ",alice.pub"]
)
def test_a_bad_row_never_stops_the_others(bad: str) -> None:
    found = read(f"name,key\n{bad}\nbob,bob.pub\n").rows
    assert [(row.number, bool(row.faults)) for row in found] == [(2, True), (3, False)]


def test_rows_are_compared_with_each_other() -> None:
    found = read("name,key,port\nalice,a.pub,22000\nbob,b.pub,22005\nalice,c.pub,\n").rows
    class_list.compare_ports(found, 10)
    class_list.compare_keys([(found[0], "k"), (found[1], "k"), (found[2], "other")])
    assert [str(fault) for fault in found[1].faults] == ["port: 22005 overlaps the ports of alice in line 2."]
    assert [str(fault) for fault in found[1].warnings] == ["key: this is the key of alice in line 2, too."]
    assert [str(fault) for fault in found[2].faults] == ["name: alice is in the file twice, in line 2 before."]


def test_cells_lose_what_copying_brings_along() -> None:
    assert read("\ufeffname,key\n\u200balice\u00a0,\u3000alice.pub\n").rows[0].values == {
        "name": "alice",
        "key": "alice.pub",
    }
