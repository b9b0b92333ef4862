"""What the engine says, in our errors, and how long it is borne with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from refusals import refused

from labshell.engine import errors
from labshell.engine.client import Engine
from labshell.engine.errors import Busy, DiskFull, OperationFailed, retry_while_busy, translate_errors
from labshell.engine.inside import Inside
from labshell.errors import LabshellError

PROGRAM = "Failed to run: btrfs {}: exit status 1 (ERROR: {})"


@pytest.mark.parametrize(
    ("says", "kind", "error_id"),
    [
        ('open /var/lib/lxd/containers/alice/backup.yaml: disk quota exceeded', DiskFull, "container-disk-full"),
        (PROGRAM.format("property set", "Could not set subvolume flags: Disk quota exceeded"), DiskFull, "container-disk-full"),
        (
            PROGRAM.format("qgroup limit", "unable to limit requested quota group: Disk quota exceeded"),
            LabshellError,
            "disk-limit-exceeded",
        ),
        ("Error deleting storage volume: Cannot remove a volume that has snapshots", LabshellError, "snapshot-unfinished"),
        ("dial unix /proc/self/fd/98/forkfile.sock: connect: no such file or directory", Busy, "container-busy"),
        (
            'Failed to start device "eth0": security.ipv6_filtering requires bridge netfilter: '
            "br_netfilter kernel module not loaded",
            LabshellError,
            "kernel-module-missing",
        ),
        ("something new", LabshellError, "engine-refused"),
    ],
)  # fmt: skip
def test_what_the_engine_says_becomes_one_of_our_errors(says: str, kind: type[LabshellError], error_id: str) -> None:
    with refused(kind, error_id) as caught, translate_errors("alice", "be changed"):
        raise OperationFailed(says)
    assert type(caught.value) is kind
    assert (caught.value.detail, caught.value.values) == (says, {"name": "alice", "action": "be changed"})


@pytest.mark.parametrize("times", [0, 2])
def test_a_busy_engine_is_asked_again(times: int) -> None:
    refusals = [Busy("container-busy", "busy")] * times

    @retry_while_busy
    def double(number: int) -> int:
        if refusals:
            raise refusals.pop()
        return 2 * number

    assert double(21) == 42


def test_an_engine_that_stays_busy_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "SETTLE_SECONDS", 0.2)

    @retry_while_busy
    def never() -> None:
        raise Busy("container-busy", "The container is busy.")

    with pytest.raises(Busy, match="is busy"):
        never()


def test_files_in_a_container_are_asked_for_again_when_the_engines_server_for_them_is_just_ending(
    tmp_path: Path,
) -> None:
    answers = iter([OperationFailed("dial unix /proc/self/fd/9/forkfile.sock: no such file"), None])

    def delete(*_: str, **__: str) -> None:
        error = next(answers)
        if error:
            raise error

    standing_in = SimpleNamespace(delete=delete)
    Inside(cast(Engine, standing_in), tmp_path).delete_file("alice", "/root/note")
    assert next(answers, "all asked for") == "all asked for"


def test_a_program_whose_output_was_lost_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As LXD 5.0 does on a loaded host: the exit status comes, and of the output nothing or a part."""
    answers = iter([(0, ""), (0, "580.1"), (0, "580.105.08\nlabshell: 9\n")])
    inside = Inside(cast(Engine, SimpleNamespace()), tmp_path)
    monkeypatch.setattr(inside, "run", lambda *_: next(answers))
    assert inside.ask("alice", ["nvidia-smi"]) == (9, "580.105.08\n")
    assert next(answers, None) is None


def test_a_program_that_shows_no_last_line_is_asked_three_times_at_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = iter([(127, "")] * 4)
    inside = Inside(cast(Engine, SimpleNamespace()), tmp_path)
    monkeypatch.setattr(inside, "run", lambda *_: next(answers))
    assert inside.ask("alice", ["nvidia-smi"]) == (127, "")
    assert len(list(answers)) == 1
