"""A class from a CSV file: several at once, going on after a bad row, safe to run again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testhost import Host

pytestmark = pytest.mark.root
NAMES = ["pupil-a", "pupil-b", "pupil-c"]


@pytest.fixture
def keys(host: Host) -> Iterator[dict[str, str]]:
    yield {name: host.client.make_key(name).with_suffix(".pub").read_text().strip() for name in NAMES}
    for name in NAMES:
        host.admin("remove-user", name, "--yes", "--no-archive", check=False)


def write(host: Host, *lines: str) -> None:
    host.run(["mkdir", "-p", "/tmp/class"])
    host.run(["tee", "/tmp/class/class.csv"], input="\n".join(lines) + "\n")


def test_a_class_comes_in_with_bad_rows_reported_and_a_second_run_completes_it(
    host: Host, keys: dict[str, str]
) -> None:
    host.run(["mkdir", "-p", "/tmp/class"])
    host.run(["tee", "/tmp/class/b.pub"], input=keys["pupil-b"])
    bad = ["Root,x y,,", f"root,{keys['pupil-a']},,", "pupil-d,missing.pub,,", f"pupil-c,{keys['pupil-c']},lots,"]
    write(host, "\ufeffname, key, memory, cpu", f"pupil-a,{keys['pupil-a']},1GiB,1", "", "pupil-b,b.pub,,", *bad)
    done = host.admin("import", "/tmp/class/class.csv", check=False, timeout=300)
    assert done.returncode == 1
    assert "2 added, 4 failed, in " in done.stdout
    for line, word in (
        (5, "cannot be a user name"),
        (6, "the system itself uses"),
        (7, "cannot be read"),
        (8, "memory: lots is not possible"),
    ):
        assert f"line {line}, " in done.stdout
        assert word in done.stdout
    for name in ("pupil-a", "pupil-b"):
        assert host.client.ssh(name, "run hostname", check=True).stdout == f"{name}\n"
    host.client.ssh(
        "pupil-a", f"keys add {keys['pupil-c']}", check=True
    )  # who has changed keys is complete all the same
    write(host, "name,key,memory", *(f"{name},{keys[name]}," for name in NAMES))
    assert "2 there already, 1 possible, 0 failed" in host.admin("import", "/tmp/class/class.csv", "--dry-run").stdout
    again = json.loads(host.admin("import", "/tmp/class/class.csv", "--json", timeout=300).stdout)
    assert [row["result"] for row in again] == ["there already", "there already", "added"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["name,kye"], "there is no column key"),
        (["name,memory"], "there is no column key"),
        ([], "there is no column name, key"),
        (["PK\x03\x04"], 'an Excel workbook, not a CSV file: save it as "CSV UTF-8"'),
    ],
)
def test_a_file_that_is_no_such_table_is_one_sentence(host: Host, lines: list[str], sentence: str) -> None:
    write(host, *lines)
    done = host.admin("import", "/tmp/class/class.csv", check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr


def test_a_file_that_is_not_there_is_one_sentence(host: Host) -> None:
    done = host.admin("import", "/tmp/none.csv", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_dry_run_finds_every_fault_of_every_row_and_of_rows_against_each_other(
    host: Host, keys: dict[str, str]
) -> None:
    key = keys["pupil-a"]
    rows = [f"pupil-a;{key};8;two", f"pupil-b;{key};8 GB;2.0", f"pupil-b;{keys['pupil-c']};8GB;1"]
    write(host, "Name;Key;Memory;CPU;;Remark", *rows)
    done = host.admin("import", "/tmp/class/class.csv", "--dry-run", check=False)
    assert done.returncode == 1
    assert "Columns that were not read: Remark.\n" in done.stderr
    for line in (
        "line 2, pupil-a: memory: 8 has no unit: write 8GiB or 8MiB.",
        "line 2, pupil-a: cpu: two is not possible: write 8, or 0-7.",
        "line 3, pupil-b: warning: key: this is the key of pupil-a in line 2, too.",
        "line 4, pupil-b: name: pupil-b is in the file twice, in line 3 before.",
        "1 possible, 2 failed, in ",
    ):
        assert line in done.stdout
    asked = host.admin("import", "/tmp/class/class.csv", "--dry-run", "--json", check=False)
    assert (asked.returncode, [row["line"] for row in json.loads(asked.stdout)]) == (1, [2, 3, 4])
    assert json.loads(asked.stderr)["error"]["id"] == "import-incomplete"
