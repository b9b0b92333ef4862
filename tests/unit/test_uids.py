"""Which uid a new account gets, on real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused

from labshell.config import Paths
from labshell.errors import LabshellError
from labshell.host.uids import Uids

FIRST = 3_000_000_000  # no account of this machine is in the range


@pytest.fixture
def uids(tmp_path: Path) -> Uids:
    for folder in ("run", "state"):
        (tmp_path / folder).mkdir(mode=0o755)
    return Uids(Paths(run=tmp_path / "run", state=tmp_path / "state"), (FIRST, FIRST + 3))


def test_no_uid_is_taken_twice_and_those_of_containers_are_left_out(uids: Uids) -> None:
    assert [uids.take({FIRST + 1}) for _ in range(2)] == [FIRST, FIRST + 2]
    assert uids.take(()) == FIRST + 3
    with refused(LabshellError, "uid-range-exhausted"):
        uids.take(())


def test_what_is_foretold_is_what_is_taken(uids: Uids) -> None:
    assert uids.next(()) == uids.next(()) == uids.take(()) == FIRST
    assert uids.next({FIRST + 1}) == uids.take({FIRST + 1}) == FIRST + 2


def test_a_uid_that_is_given_back_is_the_next_one_also_after_later_ones_were_taken(uids: Uids) -> None:
    first, second, third = (uids.take(()) for _ in range(3))
    uids.give_back(second)
    uids.give_back(first)
    assert [uids.next(()), *(uids.take(()) for _ in range(3))] == [first, first, second, third + 1]


def test_a_damaged_list_of_unused_uids_costs_only_those(uids: Uids, tmp_path: Path) -> None:
    uids.give_back(uids.take(()))
    (tmp_path / "state" / "unused-uids").write_text("what\n5\n")
    assert uids.take(()) == FIRST + 1


def test_a_damaged_counter_is_named(uids: Uids, tmp_path: Path) -> None:
    (tmp_path / "state" / "next-uid").write_text("many\n")
    with refused(LabshellError, "next-uid-file-damaged"):
        uids.take(())
