"""The port registry on real files."""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from doubles import SetClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from labshell.config import Paths
from labshell.errors import LabshellError, TryAgain, UsageError
from labshell.host import files
from labshell.host.ports import PortRegistry, listening_ports
from labshell.model.ports import PortPool

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
        self.registry = PortRegistry(self.paths, POOL, 30, listening=lambda: self.listening, clock=SetClock(lambda: self.now))


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
        with pytest.raises(LabshellError, match=re.escape(str(path))):
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


def plant(kind: str, path: Path) -> None:
    """Something that is no regular file of root's alone, in place of `path`."""
    target = path.parents[1] / "target"
    target.write_text("20000\n")
    if kind == "symbolic link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()


PLANTED = ["symbolic link", "dangling link", "hard link", "FIFO", "folder"]


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_link_or_fifo_is_refused(lab: Setting, kind: str) -> None:
    path = lab.paths.ports / "alice"
    plant(kind, path)
    before = path.lstat()
    for name in ("alice", "bob"):
        with pytest.raises(LabshellError, match=re.escape(str(path))):
            lab.registry.ensure(name)
    assert lab.registry.readable_ports() == ({}, ["alice"])
    assert path.lstat() == before
    assert [entry.name for entry in lab.paths.ports.iterdir()] == ["alice"]


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_in_place_of_next_port_is_named_and_stays(lab: Setting, kind: str) -> None:
    plant(kind, lab.paths.next_port)
    before = lab.paths.next_port.lstat()
    with pytest.raises(LabshellError, match=re.escape(str(lab.paths.next_port))):
        lab.registry.ensure("alice")
    assert lab.paths.next_port.lstat() == before
    assert list(lab.paths.ports.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"x": "y"}', b'{"1": 2}', b'{"20000": "2026-02-01"}', b"\xff", b"null"]
)
def test_damage_to_the_resting_file_is_named_and_nothing_changes(lab: Setting, content: bytes) -> None:
    lab.registry.ensure("alice")
    path = lab.paths.state / "resting-ports.json"
    path.write_bytes(content)
    for change in (
        lambda: lab.registry.ensure("bob"),
        lambda: lab.registry.release("alice"),
        lambda: lab.registry.check("bob", 20050),
    ):
        with pytest.raises(LabshellError, match=re.escape(str(path))):
            change()
    assert path.read_bytes() == content
    assert lab.registry.all_ports() == {"alice": 20000}
    assert lab.registry.ensure("alice") == 20000


def test_a_failed_add_uses_up_no_block(lab: Setting) -> None:
    assert lab.registry.next_port() == lab.registry.ensure("alice") == 20000
    lab.registry.give_up("alice")
    assert lab.registry.next_port() == lab.registry.ensure("bob") == 20000
    lab.registry.ensure("carol")
    lab.registry.ensure("dora")
    lab.registry.give_up("carol")
    assert [lab.registry.ensure(name) for name in ("erin", "frank")] == [20010, 20030]


def test_a_port_asked_for_by_number_leaves_those_before_it_to_the_next(lab: Setting) -> None:
    lab.registry.ensure("alice", 20050)
    assert [lab.registry.ensure(name) for name in ("bob", "carol")] == [20000, 20010]
    lab.paths.next_port.write_text("20050\n")
    assert lab.registry.ensure("dora") == 20060


def test_giving_up_removes_a_damaged_file_and_leaves_a_damaged_next_port(lab: Setting) -> None:
    (lab.paths.ports / "alice").write_text("what")
    lab.registry.give_up("alice")
    assert not (lab.paths.ports / "alice").exists()
    lab.registry.ensure("alice")
    lab.paths.next_port.write_text("what")
    lab.registry.give_up("alice")
    assert lab.paths.next_port.read_text() == "what"


def test_a_next_port_ahead_of_the_pool_wraps_to_its_beginning(lab: Setting) -> None:
    lab.paths.next_port.write_text("20095\n")
    assert [lab.registry.ensure(name) for name in ("ann", "ben")] == [20000, 20010]
    lab.paths.next_port.write_text("20090\n")
    assert [lab.registry.ensure(name) for name in ("cho", "dan")] == [20090, 20020]


def test_a_block_rests_to_the_end_of_its_time_and_no_longer(lab: Setting) -> None:
    lab.registry.ensure("alice")
    lab.registry.release("alice")
    lab.now = NOW + datetime.timedelta(days=30, microseconds=-1)
    assert list(lab.registry.resting()) == [20000]
    lab.now = NOW + datetime.timedelta(days=30)
    assert lab.registry.resting() == {}


def test_another_block_for_somebody_lets_the_old_one_rest_and_overlaps_nobody(lab: Setting) -> None:
    own, other = lab.registry.ensure("alice"), lab.registry.ensure("bob")
    for wrong in (other, other + 1, 1):
        with pytest.raises(UsageError):
            lab.registry.move("alice", wrong)
    assert lab.registry.port_of("alice") == own
    free = lab.registry.ensure("carol")
    lab.registry.give_up("carol")
    lab.registry.move("alice", free)
    assert (lab.registry.port_of("alice"), set(lab.registry.resting())) == (free, {own})
    with pytest.raises(UsageError):
        lab.registry.move("alice", own)  # bookmarks of others may lead there


def test_without_a_quarantine_a_released_block_does_not_rest(lab: Setting) -> None:
    registry = PortRegistry(lab.paths, POOL, 0, listening=set, clock=SetClock(lambda: NOW))
    registry.ensure("alice", 20050)
    registry.release("alice")
    assert registry.resting() == {}
    assert registry.ensure("bob", 20050) == 20050


def test_giving_up_takes_one_users_block_only_and_is_harmless_twice(lab: Setting) -> None:
    lab.registry.ensure("alice")
    lab.registry.ensure("bob")
    for _ in range(2):
        lab.registry.give_up("alice")
    assert lab.registry.all_ports() == {"bob": 20010}
    assert lab.registry.resting() == {}


def test_a_crash_before_next_port_is_written_costs_nobody_a_port(
    lab: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.registry.ensure("alice")
    write = files.write

    def crash(path: Path, content: bytes, mode: int = 0o644) -> None:
        if path == lab.paths.next_port:
            raise KeyboardInterrupt
        write(path, content, mode)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            lab.registry.ensure("bob")
    assert lab.paths.next_port.read_text() == "20010\n"
    assert lab.registry.ensure("carol") == 20020
    assert lab.registry.ensure("bob") == 20010


@pytest.mark.parametrize("name", ["../next-port", ".hidden", "a/b", "", "Alice", "root"])
def test_a_name_that_is_none_gets_no_port_and_no_file(lab: Setting, name: str) -> None:
    with pytest.raises(UsageError):
        lab.registry.ensure(name)
    assert list(lab.paths.ports.iterdir()) == []
    assert not lab.paths.next_port.exists()


def test_the_ports_of_a_listener_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in listening_ports()


def test_before_the_first_user_there_are_no_ports_and_no_folder_is_needed(tmp_path: Path) -> None:
    paths = Paths(public=tmp_path / "public", run=tmp_path, state=tmp_path)
    registry = PortRegistry(paths, POOL, 30, listening=set, clock=SetClock(lambda: NOW))
    assert registry.all_ports() == registry.resting() == {}
    assert registry.readable_ports() == ({}, [])
    assert registry.port_of("alice") is None
    assert registry.ensure("alice") == 20000


class Allocation(RuleBasedStateMachine):
    """Any order of giving, taking back, listening and crashing: no port is ever two people's."""

    names = st.sampled_from([f"user{number}" for number in range(14)])

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.lab = Setting(Path(self.folder.name))
        self.held: dict[str, int] = {}
        self.resting: dict[int, datetime.datetime] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def unusable(self) -> set[int]:
        """Every port that nobody new may get now."""
        resting = [first for first, until in self.resting.items() if until > self.lab.now]
        taken = {port for first in [*self.held.values(), *resting] for port in POOL.block(first)}
        return taken | self.lab.listening

    def given(self, name: str, port: int, unusable: set[int]) -> None:
        assert POOL.fits(port)
        assert not unusable & set(POOL.block(port))
        self.held[name] = port

    @rule(name=names)
    def ensure(self, name: str) -> None:
        unusable = self.unusable()
        if name in self.held:
            assert self.lab.registry.ensure(name) == self.held[name]
        elif all(unusable & set(POOL.block(first)) for first in range(20000, 20100, 10)):
            with pytest.raises(TryAgain):
                self.lab.registry.ensure(name)
        else:
            self.given(name, self.lab.registry.ensure(name), unusable)

    @rule(name=names, port=st.integers(19995, 20095))
    def ask_for_a_port(self, name: str, port: int) -> None:
        unusable = self.unusable()
        if self.held.get(name) == port:
            assert self.lab.registry.ensure(name, port) == port
        elif name in self.held or not POOL.fits(port) or unusable & set(POOL.block(port)):
            with pytest.raises(UsageError):
                self.lab.registry.ensure(name, port)
        else:
            assert self.lab.registry.ensure(name, port) == port
            self.given(name, port, unusable)

    @rule(name=names)
    def release(self, name: str) -> None:
        self.lab.registry.release(name)
        if name in self.held:
            self.resting[self.held.pop(name)] = self.lab.now + datetime.timedelta(days=30)

    @rule(name=names)
    def give_up(self, name: str) -> None:
        self.lab.registry.give_up(name)
        self.held.pop(name, None)

    @rule(days=st.integers(1, 40))
    def pass_time(self, days: int) -> None:
        self.lab.now += datetime.timedelta(days=days)

    @rule(ports=st.sets(st.integers(19990, 20110), max_size=6))
    def listen(self, ports: set[int]) -> None:
        self.lab.listening = ports

    @rule(port=st.integers(1, 65535))
    def crash_before_next_port_was_written(self, port: int) -> None:
        self.lab.paths.next_port.write_text(f"{port}\n")

    @invariant()
    def no_port_is_given_twice_and_none_is_lost(self) -> None:
        assert self.lab.registry.all_ports() == self.held
        blocks = [port for first in self.held.values() for port in POOL.block(first)]
        assert len(blocks) == len(set(blocks))


Allocation.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAllocation = Allocation.TestCase

# One interpreter that forks: two hundred that start would keep the processors busy, not the lock. Nobody begins
# before the last one is there, when the parent closes the gate. Waiting is long, so that a slow disk fails nothing.
RACE = """
import json, os, sys, traceback
from pathlib import Path
from labshell.host import files
from labshell.config import Paths
from labshell.model.ports import PortPool
from labshell.host.ports import PortRegistry

files.LOCK_SECONDS, files.LOCK_POLL_SECONDS = 300, 0.2
folder = Path(sys.argv[1])
paths = Paths(public=folder / "public", run=folder / "run", state=folder / "state")
gate, opening = os.pipe()
answers, answer = os.pipe()
children = []
for name in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        try:
            os.close(opening)
            os.read(gate, 1)
            port = PortRegistry(paths, PortPool(20000, 29999, 10), 30, listening=set).ensure(name)
            os.write(answer, json.dumps([name, port]).encode() + b"\\n")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    children.append(child)
os.close(answer)
os.close(opening)
with open(answers) as lines:
    print(json.dumps([json.loads(line) for line in lines]))
for child in children:
    os.waitpid(child, 0)
"""


def race(folder: Path, names: list[str]) -> list[list[str | int]]:
    """What each of as many processes as there are names was given, all of them starting at once."""
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    argv = [sys.executable, "-c", RACE, str(folder), *names]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment, timeout=600)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_two_hundred_processes_at_once_get_two_hundred_different_ports(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    names = [f"user{number}" for number in range(200)]
    given = dict(race(tmp_path, names))
    assert sorted(given) == sorted(names)
    assert sorted(given.values()) == list(range(20000, 22000, 10))
    assert {name: int((paths.ports / name).read_bytes()) for name in os.listdir(paths.ports)} == given
    assert paths.next_port.read_bytes() == b"22000\n"


def test_many_processes_at_once_for_one_user_get_one_port(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    assert race(tmp_path, ["alice"] * 20) == [["alice", 20000]] * 20
    assert paths.next_port.read_bytes() == b"20010\n"


def test_the_very_last_port_there_is_leaves_next_port_readable(tmp_path: Path) -> None:
    registry = PortRegistry(paths_in(tmp_path), PortPool(65516, 65535, 10), 30, listening=set, clock=SetClock(lambda: NOW))
    assert [registry.ensure(name) for name in ("ann", "ben")] == [65516, 65526]
    with pytest.raises(TryAgain):
        registry.ensure("cho")


def test_a_file_that_was_read_before_is_read_again_when_it_changes(lab: Setting) -> None:
    lab.registry.ensure("alice")
    path = lab.paths.ports / "alice"
    for port in (20010, 20020, 20030):
        assert lab.registry.all_ports() == lab.registry.all_ports() != {"alice": port}
        path.write_text(f"{port}\n")  # in place, with the same length
        assert lab.registry.all_ports() == {"alice": port}
    path.write_text("no\n")
    assert lab.registry.readable_ports() == ({}, ["alice"])
    path.unlink()
    assert lab.registry.all_ports() == {}


def test_changes_in_quick_succession_are_seen(lab: Setting) -> None:
    path = lab.paths.ports / "alice"
    for port in range(20000, 20090):
        path.write_text(f"{port}\n")
        assert lab.registry.all_ports() == {"alice": port}


def test_another_folder_in_the_place_of_the_first_is_read(lab: Setting) -> None:
    lab.registry.ensure("alice")
    assert lab.registry.all_ports() == {"alice": 20000}
    lab.paths.ports.rename(lab.paths.public / "before")
    assert lab.registry.all_ports() == {}
    lab.paths.ports.mkdir()
    (lab.paths.ports / "bob").write_text("20010\n")
    assert lab.registry.all_ports() == {"bob": 20010}
    (lab.paths.ports / "bob").rename(lab.paths.ports / "cho")
    assert lab.registry.all_ports() == {"cho": 20010}


def test_more_changes_than_the_kernel_remembers_are_not_missed(lab: Setting) -> None:
    assert lab.registry.all_ports() == {}
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 10):  # each one made and written
        (lab.paths.ports / "crowd").unlink(missing_ok=True)
        (lab.paths.ports / "crowd").write_text(f"{20000 + number % 100}\n")
    (lab.paths.ports / "late").write_text("20050\n")
    assert lab.registry.all_ports()["late"] == 20050


def test_without_anybody_watching_every_file_is_read(lab: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("labshell.host.watch.INotify", refuse)
    for port in (20000, 20010):
        (lab.paths.ports / "alice").write_text(f"{port}\n")
        assert lab.registry.all_ports() == {"alice": port}


def test_a_spare_port_is_the_last_free_one_and_nothing_is_written(lab: Setting) -> None:
    last = POOL.last
    assert lab.registry.spare_port() == last
    lab.listening = {last}
    assert lab.registry.spare_port() == last - 1
    lab.listening = set()
    lab.registry.adopt("alice", last - POOL.size + 1)
    assert lab.registry.spare_port() == last - POOL.size
    before = sorted(lab.paths.public.rglob("*"))
    lab.registry.spare_port()
    assert sorted(lab.paths.public.rglob("*")) == before


def test_there_may_be_no_spare_port(lab: Setting) -> None:
    lab.listening = set(range(POOL.first, POOL.last + 1))
    with pytest.raises(TryAgain):
        lab.registry.spare_port()
