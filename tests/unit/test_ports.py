"""The port registry on real files."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from labshell import files
from labshell.config import Paths
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.policy import PortPool
from labshell.ports import PortRegistry

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
POOL = PortPool(20000, 20099, 10)
DAMAGED = [
    b"",
    b"-1\n",
    b"99999\n",
    b"0x50\n",
    "２０００１\n".encode(),
    b"20010\r\n",
    b"1\n2\n",
    b"\0\n",
    b"9" * 2_000_000,
]


def paths_in(folder: Path) -> Paths:
    paths = Paths(public=folder / "public", run=folder / "run", state=folder / "state")
    for path in (paths.run, paths.state, paths.public, paths.ports):
        path.mkdir()
        path.chmod(0o755)
    return paths


class Setting:
    """A registry with a clock and listeners to play with."""

    def __init__(self, folder: Path) -> None:
        self.paths = paths_in(folder)
        self.now = NOW
        self.listening: set[int] = set()
        self.registry = PortRegistry(self.paths, POOL, 30, listening=lambda: self.listening, now=lambda: self.now)


@pytest.fixture
def lab(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_a_user_keeps_the_port_and_the_files_have_the_old_schemes_form(lab: Setting) -> None:
    assert lab.registry.ensure("alice") == 20000
    assert lab.registry.ensure("bob") == 20010
    assert lab.registry.ensure("alice") == 20000
    assert (lab.paths.ports / "alice").read_bytes() == b"20000\n"
    assert lab.paths.next_port.read_bytes() == b"20020\n"
    assert lab.registry.all_ports() == {"alice": 20000, "bob": 20010}


def test_existing_files_are_adopted_as_they_are_and_never_overlapped(lab: Setting) -> None:
    (lab.paths.ports / "old").write_text("20015\n")
    (lab.paths.ports / "older").write_text("2011\n")
    lab.paths.next_port.write_text("20016\n")
    assert lab.registry.ensure("old") == 20015
    assert lab.registry.ensure("older") == 2011
    assert [lab.registry.ensure(name) for name in ("ann", "ben")] == [20030, 20040]
    lab.paths.next_port.write_text("20005\n")
    assert lab.registry.ensure("cho") == 20050


def test_ports_that_something_listens_on_are_passed_over(lab: Setting) -> None:
    lab.listening = {20003, 20019}
    assert lab.registry.ensure("alice") == 20020


def test_a_released_block_rests_before_somebody_else_gets_it(lab: Setting) -> None:
    for number in range(10):
        lab.registry.ensure(f"user{number}")
    with pytest.raises(TryAgain, match="20000 to 20099"):
        lab.registry.ensure("late")
    lab.registry.release("user3")
    lab.registry.release("user3")
    with pytest.raises(TryAgain):
        lab.registry.ensure("late")
    assert not (lab.paths.ports / "late").exists()
    lab.now += datetime.timedelta(days=31)
    assert lab.registry.ensure("late") == 20030


def test_a_block_given_up_unused_does_not_rest(lab: Setting) -> None:
    port = lab.registry.ensure("alice")
    lab.registry.give_up("alice")
    lab.paths.next_port.unlink()
    assert lab.registry.ensure("bob") == port


def test_a_port_by_number_is_given_or_refused_with_a_reason(lab: Setting) -> None:
    assert lab.registry.ensure("alice", 20045) == 20045
    assert lab.registry.ensure("alice", 20045) == 20045
    for name, port in (("alice", 20050), ("bob", 20040), ("bob", 22), ("bob", 20091)):
        with pytest.raises(UsageError):
            lab.registry.ensure(name, port)
    lab.registry.release("alice")
    with pytest.raises(UsageError, match="removed user"):
        lab.registry.ensure("bob", 20045)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_a_user_is_named_and_never_overwritten(lab: Setting, content: bytes) -> None:
    path = lab.paths.ports / "alice"
    path.write_bytes(content)
    for name in ("alice", "bob"):
        with pytest.raises(LabshellError, match=str(path)):
            lab.registry.ensure(name)
    assert path.read_bytes() == content
    assert lab.registry.readable_ports() == ({}, ["alice"])
    assert sorted(entry.name for entry in lab.paths.ports.iterdir()) == ["alice"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_next_port_is_named_and_nothing_is_given(lab: Setting, content: bytes) -> None:
    lab.paths.next_port.write_bytes(content)
    with pytest.raises(LabshellError, match="next-port"):
        lab.registry.ensure("alice")
    assert lab.paths.next_port.read_bytes() == content
    assert list(lab.paths.ports.iterdir()) == []


def test_a_planted_link_or_fifo_is_refused(lab: Setting, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("20000\n")
    (lab.paths.ports / "alice").symlink_to(tmp_path / "target")
    os.mkfifo(lab.paths.ports / "bob")
    for name in ("alice", "bob"):
        with pytest.raises(LabshellError):
            lab.registry.port_of(name)


def test_damage_to_the_resting_file_is_named(lab: Setting) -> None:
    for content in (b"", b"[]", b"{", b'{"x": "y"}', b'{"1": 2}'):
        files.write(lab.paths.state / "resting-ports.json", content)
        with pytest.raises(LabshellError, match="resting-ports"):
            lab.registry.ensure("alice")


class Allocation(RuleBasedStateMachine):
    """Any order of giving, taking back and crashing: no port is ever two people's."""

    names = st.sampled_from([f"user{number}" for number in range(14)])

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.lab = Setting(Path(self.folder.name))
        self.resting: dict[int, datetime.datetime] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(name=names)
    def ensure(self, name: str) -> None:
        had = self.lab.registry.port_of(name)
        try:
            port = self.lab.registry.ensure(name)
        except TryAgain:
            assert len(self.lab.registry.all_ports()) + len(self.resting) >= 10
            return
        assert had in (None, port)
        if had is None:
            assert port not in self.resting or self.resting[port] <= self.lab.now

    @rule(name=names)
    def release(self, name: str) -> None:
        port = self.lab.registry.port_of(name)
        self.lab.registry.release(name)
        if port is not None:
            self.resting[port] = self.lab.now + datetime.timedelta(days=30)

    @rule(days=st.integers(1, 40))
    def pass_time(self, days: int) -> None:
        self.lab.now += datetime.timedelta(days=days)

    @rule(port=st.integers(20000, 20120))
    def crash_before_next_port_was_written(self, port: int) -> None:
        self.lab.paths.next_port.write_text(f"{port}\n")

    @invariant()
    def no_port_is_given_twice(self) -> None:
        blocks = [port for first in self.lab.registry.all_ports().values() for port in POOL.block(first)]
        assert len(blocks) == len(set(blocks))


Allocation.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestAllocation = Allocation.TestCase

ALLOCATE = """
import sys
from pathlib import Path
from labshell.config import Paths
from labshell.policy import PortPool
from labshell.ports import PortRegistry
folder, name = Path(sys.argv[1]), sys.argv[2]
paths = Paths(public=folder / "public", run=folder / "run", state=folder / "state")
print(PortRegistry(paths, PortPool(20000, 29999, 10), 30, listening=set).ensure(name))
"""


def test_two_hundred_processes_at_once_get_two_hundred_different_ports(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    argv = [sys.executable, "-c", ALLOCATE, str(tmp_path)]
    running = [
        subprocess.Popen(
            [*argv, f"user{number}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for number in range(200)
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert [errors for _, errors in answers if errors] == []
    ports = [int(output) for output, _ in answers]
    assert sorted(ports) == list(range(20000, 22000, 10))
    assert len(list(paths.ports.iterdir())) == 200
    assert paths.next_port.read_text() == "22000\n"
