"""How a program inside a container is ended when whoever started it has gone."""

from __future__ import annotations

import os
import subprocess

import pytest
from refusals import refused

from labshell.engine import programs
from labshell.engine.programs import OUTPUT_BYTES, RunningProgram, _streams
from labshell.errors import TryAgain

# As the engine's client: it passes a signal on only when it is connected.
LISTENS_LATE = "sleep 0.4; trap 'exit 3' TERM; sleep 30 & wait"


@pytest.mark.parametrize(("command", "leads", "status"), [(LISTENS_LATE, True, 3), ("exec sleep 30", False, -15)])
def test_a_program_that_has_just_been_started_is_ended_in_a_way_it_can_pass_on(
    command: str, status: int, *, leads: bool
) -> None:
    process = subprocess.Popen(["sh", "-c", command], start_new_session=leads)
    RunningProgram(process, []).end()
    assert process.returncode == status


def test_a_line_on_standard_error_that_nobody_reads_any_more_ends_nothing_early() -> None:
    """As runuser writes one before it ends what it started; the engine's client writes it to this pipe."""
    (from_us, to_program), (output, to_output), (errors, to_us) = os.pipe(), os.pipe(), os.pipe()
    command = "trap 'echo ending >&2; sleep 0.2; exit 3' TERM; sleep 30 & wait"
    process = subprocess.Popen(["sh", "-c", command], stderr=to_us, start_new_session=True)
    for descriptor in (from_us, to_output, to_us):
        os.close(descriptor)
    RunningProgram(process, [to_program, output, errors]).end()
    assert process.returncode == 3
    for descriptor in (to_program, output, errors):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_what_has_ended_is_sent_nothing() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    program = RunningProgram(process, [])
    assert program.wait(lambda: False) == 0
    program.end()
    assert process.returncode == 0


def started(command: str) -> RunningProgram:
    """A program on three pipes, as run_inside() makes them."""
    ours, theirs = _streams()
    process = subprocess.Popen(["sh", "-c", command], stdin=theirs[0], stdout=theirs[1], stderr=theirs[2],
                               start_new_session=True)  # fmt: skip
    for descriptor in theirs:
        os.close(descriptor)
    return RunningProgram(process, ours)


def test_what_a_program_prints_is_kept_up_to_a_limit_with_its_status() -> None:
    status, text = started("cat; head -c 300000 /dev/zero; echo out; sleep 0.1; echo err >&2; exit 4").output(
        10, 1 << 20
    )
    assert (status, len(text)) == (4, OUTPUT_BYTES)
    assert "out" in text
    assert "err" in text


@pytest.mark.parametrize("command", ["yes", "sleep 60", "exec >/dev/null 2>&1; sleep 60", "trap '' TERM; yes"])
def test_a_program_without_end_is_ended(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LISTENS_SECONDS", 0.1)
    monkeypatch.setattr(programs, "END_SECONDS", 0.5)
    program = started(command)
    with refused(TryAgain, "container-command-timeout"):
        program.output(0.3, 1 << 20)
    assert program._process.poll() is not None
