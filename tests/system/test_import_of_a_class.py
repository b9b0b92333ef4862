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
        (8, "not possible for memory"),
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
        (["name,kye"], "no such column kye"),
        (["name,memory"], "there is no column key"),
        (["name,key", "a,b,c"], "line 2 has more fields"),
        ([], "there is no column name, key"),
        (["name,key", '"a,b'], "cannot be read as CSV"),
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
