"""The daemon killed at every step of rebuild and snapshot: the next request settles it, and says which way."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import Crash, FakeContainers, Instance, SetClock, answer_of, lab_of
from refusals import refused

from labshell.config import Config, Paths
from labshell.daemon.calls import Call
from labshell.daemon.interfaces import GatewayInterface
from labshell.engine.errors import Busy
from labshell.errors import LabshellError, NoContainer, StillPending, TryAgain, UsageError
from labshell.model.access import Caller
from labshell.model.keys import PublicKey
from labshell.operations import lifecycle
from labshell.operations.idle_stop import IdleStop
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.rebuild import Rebuild
from labshell.operations.recovery import Recovery
from labshell.operations.snapshots import Snapshots

USER, UID, ADDRESS = "alice", 30000, "10.83.0.7"
KEYS, TODAYS_KEYS = "/home/alice/.ssh/authorized_keys", b"ssh-ed25519 AAAA\n"
LIMITS = {"limits.cpu": "8", "disk": "200GiB"}


class Lab:
    """A host with one researcher; begin_again() is a daemon that starts after a crash."""

    def __init__(self, folder: Path) -> None:
        self._minutes = 0
        self.containers = FakeContainers()
        self.containers.instances["template"].files["/system"] = b"fresh"
        self.containers.instances[USER] = Instance(
            USER, UID, ADDRESS, state="Running", is_prepared=True, limits=dict(LIMITS), files={"/data": b"old"}
        )
        (folder / "run").mkdir()
        self._config = Config(paths=Paths(state=folder / "state", run=folder / "run"), start_timeout_seconds=1)
        self.begin_again()

    def begin_again(self) -> None:
        accounts: Any = SimpleNamespace(
            keys_of=lambda user: [PublicKey("ssh-ed25519", "AAAA")], note_login=lambda user: None
        )
        ports: Any = SimpleNamespace(
            ensure=lambda user: 20000, port_of=lambda user: 20000, block=lambda port: range(port, port + 10)
        )
        firewall = SimpleNamespace(forward=lambda container: None)
        self.host = lab_of(
            self._config,
            accounts=accounts,
            containers=self.containers,
            ports=ports,
            firewall=firewall,
            clock=SetClock(self._clock),
        )
        self.rebuild, self.snapshots = Rebuild(self.host), Snapshots(self.host)
        self.lifecycle = Lifecycle(self.host)

    def _clock(self) -> datetime.datetime:
        """A minute later each time: two rebuilds never share a second."""
        self._minutes += 1
        return datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc) + datetime.timedelta(
            minutes=self._minutes
        )

    @property
    def own(self) -> Instance:
        return self.containers.instances[USER]

    def settle(self) -> str:
        """The next request of the user's, and what they are told."""
        answer_of(Recovery(self.host).recover(USER))
        notice = self.host.unfinished.take_notice(USER)
        return notice["sentence"].format_map(notice["values"]) if notice else ""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(lifecycle, "ssh_answers", lambda *_, **__: True)
    return Lab(tmp_path)


def nothing(_: Lab) -> None:
    """Before the first rebuild."""


def lab_in(folder: Path, before: Callable[[Lab], object] = nothing) -> Lab:
    """A lab of its own in which `before` has happened; what changes is counted from there."""
    folder.mkdir()
    lab = Lab(folder)
    before(lab)
    lab.containers.changes = 0
    return lab


def changes_of(tmp_path: Path, verb: Callable[[Lab], object], before: Callable[[Lab], object] = nothing) -> int:
    """How many changes a verb makes in all, without a crash."""
    whole = lab_in(tmp_path / "whole", before)
    verb(whole)
    return whole.containers.changes


def is_new(own: Instance) -> bool:
    return "/system" in own.files


def test_rebuild_keeps_address_limits_and_host_keys_and_the_old_container(lab: Lab) -> None:
    answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))
    first_key = lab.own.files["/etc/ssh/ssh_host_ed25519_key.pub"]
    assert is_new(lab.own)
    assert "/data" not in lab.own.files
    assert (lab.own.address, lab.own.limits, lab.own.state) == (ADDRESS, LIMITS, "Running")
    assert lab.containers.instances[lab.own.kept].files["/data"] == b"old"
    answer_of(lab.rebuild.undo(USER, UID, force=False))
    assert lab.own.files["/data"] == b"old"
    assert lab.own.address == ADDRESS
    answer_of(lab.rebuild.undo(USER, UID, force=False))
    assert lab.own.files["/etc/ssh/ssh_host_ed25519_key.pub"] == first_key
    answer_of(lab.rebuild.forget(USER, UID))
    assert set(lab.containers.instances) == {"template", USER}
    with refused(UsageError, "kept-container-missing"):
        answer_of(lab.rebuild.undo(USER, UID, force=False))


def test_host_keys_are_kept_on_the_host_whatever_their_owner_does_and_made_anew_if_they_are_damaged(lab: Lab) -> None:
    answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))
    name, saved = "/etc/ssh/ssh_host_ed25519_key.pub", lab._config.paths.host_keys / USER
    good = lab.own.files.pop(name)
    lab.own.files["/etc/ssh/ssh_host_ed25519_key"] = b"what is this?"
    answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))
    assert lab.own.files[name] == good
    assert saved.stat().st_mode & 0o777 == 0o600
    saved.write_text(saved.read_text()[:100])
    answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))
    assert lab.own.files[name] not in (good, b"")


def test_only_marked_templates_can_be_chosen(lab: Lab) -> None:
    lab.containers.instances["bob"] = Instance("bob", 30001, "10.83.0.8")
    for name in ("bob", "nothing", "alice"):
        with pytest.raises(UsageError, match="there is: template"):
            answer_of(lab.rebuild.rebuild(USER, UID, name, force=False))
    assert not is_new(lab.own)


def test_an_address_that_is_promised_is_given_to_nobody_else(lab: Lab) -> None:
    with lab.host.addresses.choosing() as one, lab.host.addresses.choosing() as other:
        assert one != other
    with lab.host.addresses.choosing() as again:
        assert again == one


def test_a_template_that_is_being_changed_is_not_cloned(lab: Lab) -> None:
    lab.containers.instances["template"].state = "Running"
    with refused(TryAgain, "template-changing"):
        answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))
    assert lab.containers.changes == 0


def rebuild(lab: Lab) -> None:
    answer_of(lab.rebuild.rebuild(USER, UID, "", force=False))


def undo(lab: Lab) -> None:
    answer_of(lab.rebuild.undo(USER, UID, force=False))


def rebuild_twice(lab: Lab) -> None:
    rebuild(lab)
    lab.own.files["/data"] = b"old"
    lab.containers.instances[lab.own.kept].files["/data"] = b"older"
    rebuild(lab)


@pytest.mark.parametrize("verb", [rebuild, rebuild_twice])
def test_rebuild_killed_at_any_step_leaves_the_old_container_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[[Lab], None]
) -> None:
    monkeypatch.setattr(lifecycle, "ssh_answers", lambda *_, **__: True)
    steps = changes_of(tmp_path, verb)
    assert steps > 15
    outcomes = set()
    for number in range(steps):
        lab = lab_in(tmp_path / str(number))
        lab.containers.crash_at = number
        with pytest.raises(Crash):
            verb(lab)
        whole = [item.files.get("/data") for item in lab.containers.instances.values()]
        assert b"old" in whole, f"step {number}: the data is gone"
        lab.begin_again()
        told = lab.settle()
        lab.begin_again()
        assert lab.settle() == "", "settled once and for all"
        kept = lab.containers.instances.get(lab.own.kept)
        assert lab.own.address == ADDRESS
        assert lab.own.limits == LIMITS
        assert b"old" in (lab.own.files.get("/data"), kept and kept.files.get("/data"))
        if told:
            assert ("new container is there" in told) == ("/data" not in lab.own.files), told
            outcomes.add("new container is there" in told)
        assert set(lab.containers.instances) <= {"template", USER, lab.own.kept}
        answer_of(lab.lifecycle.start(USER, UID))
        rebuild(lab)
    assert outcomes == {True, False}


def test_rebuild_undo_killed_at_any_step_leaves_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "ssh_answers", lambda *_, **__: True)
    steps = changes_of(tmp_path, undo, rebuild)
    assert 5 < steps < 50
    outcomes = set()
    for number in range(steps + 1):  # the last one is not killed
        lab = lab_in(tmp_path / str(number), rebuild)
        lab.own.files["/work"] = b"since"
        lab.containers.crash_at = number
        try:
            undo(lab)
        except Crash:
            lab.begin_again()
            told = lab.settle()
        else:
            assert number == steps
            told, lab.containers.crash_at = "", None
        data = [item.files for item in lab.containers.instances.values()]
        assert any("/work" in files for files in data)
        assert any(files.get("/data") == b"old" for files in data)
        assert lab.own.address == ADDRESS
        if told:
            is_back = "old container is back" in told
            assert is_back == (lab.own.files.get("/data") == b"old")
            outcomes.add(is_back)
        answer_of(lab.lifecycle.start(USER, UID))
        undo(lab)
    assert outcomes == {True, False}


@pytest.mark.parametrize("refusal", [LabshellError, TryAgain, StillPending])
@pytest.mark.parametrize(("act", "before"), [(rebuild, nothing), (undo, rebuild)])
def test_an_engine_that_refuses_at_any_step_of_the_change_leaves_one_of_the_two_and_nothing_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Lab], None],
    before: Callable[[Lab], None],
    refusal: type[LabshellError],
) -> None:
    """Only what may still come to an end in the engine is left open, and the next request closes it."""
    monkeypatch.setattr(lifecycle, "ssh_answers", lambda *_, **__: True)
    steps = changes_of(tmp_path, act, before)
    assert 5 < steps < 50
    outcomes, were_open = set(), False
    for number in range(steps + 1):  # the last one is not refused
        lab = lab_in(tmp_path / str(number), before)
        lab.containers.refuse_at, lab.containers.refusal = number, refusal
        try:
            act(lab)
        except LabshellError:
            assert lab.containers.refuse_at is None
        else:
            assert number == steps
            lab.containers.refuse_at = None
        if refusal is StillPending and lab.host.unfinished.work_of(USER):
            were_open = True
            lab.settle()
        assert lab.host.unfinished.work_of(USER) is None
        assert lab.own.address == ADDRESS
        assert lab.own.state == "Running", f"step {number}: it ran before"
        assert any(item.files.get("/data") == b"old" for item in lab.containers.instances.values())
        assert set(lab.containers.instances) <= {"template", USER, lab.own.kept}
        outcomes.add(lab.own.files.get("/data"))
    assert outcomes == {b"old", None}
    assert were_open == (refusal is StillPending)


@pytest.mark.parametrize(("act", "before"), [(rebuild, nothing), (undo, rebuild)])
@pytest.mark.parametrize("refused", ["take_over", "take_off_network"])
def test_a_busy_engine_leaves_a_container_as_it_was_running_or_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Lab], None],
    before: Callable[[Lab], None],
    refused: str,
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise Busy("container-busy", "The container is busy with something else; try again in a moment.")

    monkeypatch.setattr(lifecycle, "ssh_answers", lambda *_, **__: True)
    for state in ("Running", "Stopped"):
        lab = lab_in(tmp_path / state, before)
        lab.own.state, lab.own.files["/work"] = state, b"since"
        monkeypatch.setattr(lab.containers, refused, busy)
        with pytest.raises(Busy):
            act(lab)
        assert (lab.own.state, lab.own.address, lab.own.files["/work"]) == (state, ADDRESS, b"since")
        assert lab.host.unfinished.work_of(USER) is None


def test_a_container_that_ran_and_does_not_start_again_leaves_nothing_open(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user reads why it was not rebuilt; the next login starts it."""

    def refuse(*_: object, **__: object) -> None:
        raise TryAgain("engine-timeout", "The engine is at something else.")

    monkeypatch.setattr(lab.containers, "take_over", refuse)
    start = lab.containers.start
    monkeypatch.setattr(lab.containers, "start", lambda name, seconds: refuse() if name == USER else start(name, seconds))
    with pytest.raises(TryAgain, match="something else") as caught:
        rebuild(lab)
    assert not isinstance(caught.value, StillPending)
    assert lab.host.unfinished.work_of(USER) is None


def test_a_full_disk_is_found_before_anything_is_stopped(lab: Lab) -> None:
    lab.containers.full.add(USER)
    with refused(LabshellError, "container-disk-full"):
        rebuild(lab)
    assert (set(lab.containers.instances), lab.own.state) == ({"template", USER}, "Running")
    assert lab.settle() == ""


def test_an_address_that_a_container_is_to_have_again_is_given_to_nobody(lab: Lab) -> None:
    lab.host.unfinished.begin(USER, "rebuild", incoming="a--new", outgoing="a--x", address="10.83.0.2")
    lab.own.address = None
    with lab.host.addresses.choosing() as address:
        assert address == "10.83.0.3"


def test_what_is_open_stays_open_under_what_is_done_about_it(lab: Lab) -> None:
    notes = lab.host.unfinished
    notes.begin(USER, "rebuild", incoming="a")
    with refused(TryAgain, "recovery-pending"):
        notes.begin(USER, "snapshot create")
    notes.begin(USER, "snapshot restore", over=notes.work_of(USER), settings=1)
    notes.begin(USER, "snapshot restore", over=notes.work_of(USER), settings=1)
    notes.forget(USER)
    assert (notes.work_of(USER) or {})["verb"] == "rebuild"
    notes.forget(USER)
    assert notes.work_of(USER) is None


def test_a_rebuild_that_fails_leaves_the_old_container_running(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> tuple[int, str]:
        return 1, "no useradd in this template"

    monkeypatch.setattr(lab.containers, "run", broken)
    with pytest.raises(LabshellError, match="no useradd"):
        rebuild(lab)
    assert set(lab.containers.instances) == {"template", USER}
    assert (lab.own.state, lab.own.files) == ("Running", {"/data": b"old"})
    assert lab.settle() == ""


JUST_BEFORE_THE_START = 5  # nothing is unfinished any more, and the next login starts the container


@pytest.mark.parametrize("number", range(7))
def test_snapshot_killed_at_any_step_says_what_became_of_it(lab: Lab, number: int) -> None:
    lab.containers.crash_at = lab.containers.changes + number
    try:
        answer_of(lab.snapshots.create(USER, UID, "kept"))
        lab.own.files["/data"] = b"changed"
        answer_of(lab.snapshots.restore(USER, UID, "kept"))
    except Crash:
        lab.begin_again()
        told = lab.settle()
        labels = [snapshot.name for snapshot in lab.containers.snapshots.of(USER)]
        if told.startswith("snapshot create"):
            assert ("but kept is kept" in told) == (labels == ["kept"])
        else:
            was_restored = lab.own.files["/data"] == b"old" and bool(labels)
            assert ("as it was at kept" in told) == (was_restored and number < JUST_BEFORE_THE_START)
            assert not lab.own.restoring or not told
            assert lab.own.state == "Running" or number == JUST_BEFORE_THE_START
    assert lab.own.limits == LIMITS


@pytest.mark.parametrize("number", range(8))
def test_a_restore_killed_at_any_step_never_starts_with_a_key_that_was_removed_since(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lab.own.files[KEYS] = b"ssh-ed25519 AAAA\nssh-ed25519 STOLEN\n"
    answer_of(lab.snapshots.create(USER, UID, "kept"))
    lab.own.files[KEYS] = TODAYS_KEYS
    started_with, start = [], lab.containers.lifecycle.start

    def note_and_start(name: str, timeout_seconds: int) -> None:
        started_with.append(lab.own.files[KEYS])
        start(name, timeout_seconds)

    monkeypatch.setattr(lab.containers, "start", note_and_start)
    lab.containers.crash_at = lab.containers.changes + number
    try:
        answer_of(lab.snapshots.restore(USER, UID, "kept"))
    except Crash:
        lab.begin_again()
        lab.settle()
        answer_of(lab.lifecycle.start(USER, UID))
    assert lab.own.files[KEYS] == TODAYS_KEYS
    assert set(started_with) <= {TODAYS_KEYS}


def test_a_key_that_was_removed_since_a_rebuild_does_not_come_back_with_the_old_container(lab: Lab) -> None:
    lab.own.files[KEYS] = b"ssh-ed25519 AAAA\nssh-ed25519 STOLEN\n"
    rebuild(lab)
    undo(lab)
    assert lab.own.files == {"/data": b"old", KEYS: TODAYS_KEYS}


@pytest.mark.parametrize("number", range(5))
def test_a_restore_of_a_full_disk_that_is_killed_is_said_though_it_could_not_be_marked(lab: Lab, number: int) -> None:
    answer_of(lab.snapshots.create(USER, UID, "kept"))
    lab.own.files["/data"] = b"changed"
    lab.containers.full = {USER}
    lab.containers.crash_at = lab.containers.changes + number
    try:
        answer_of(lab.snapshots.restore(USER, UID, "kept"))
    except Crash:
        lab.begin_again()
        told = lab.settle()
        assert told == "" if number in (0, 4) else "before, or as at kept already" in told
    else:
        raise AssertionError("not killed")
    assert lab.own.files["/data"] == (b"changed" if number < 3 else b"old")
    assert lab.own.limits == LIMITS
    assert lab.own.state == "Running" or number == 4


@pytest.mark.parametrize("refusal", [LabshellError, TryAgain])
def test_a_restore_that_the_engine_refuses_is_said_and_the_container_runs_as_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, refusal: type[LabshellError]
) -> None:
    def refuse(*_: object) -> None:
        raise refusal("engine-refused", "The snapshot is not to be had.")

    answer_of(lab.snapshots.create(USER, UID, "kept"))
    lab.own.files["/data"] = b"changed"
    monkeypatch.setattr(lab.containers.snapshots, "restore", refuse)
    for broken in ("", "wait_for_ssh"):
        if broken:
            monkeypatch.setattr(Lifecycle, broken, refuse)
        with refused(LabshellError, "engine-refused"):
            answer_of(lab.snapshots.restore(USER, UID, "kept"))
        assert (lab.own.state, lab.own.files["/data"], lab.own.limits) == ("Running", b"changed", LIMITS)
        assert lab.settle() == ""


def test_a_restore_after_which_sshd_is_slow_puts_no_settings_back_a_second_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> None:
        raise TryAgain("container-ssh-timeout", "Its SSH server has not answered.")

    answer_of(lab.snapshots.create(USER, UID, "kept"))
    with monkeypatch.context() as patch:
        patch.setattr(Lifecycle, "wait_for_ssh", slow)
        with pytest.raises(TryAgain):
            answer_of(lab.snapshots.restore(USER, UID, "kept"))
    lab.own.limits["cpu"] = "2"
    assert lab.settle() == ""
    assert lab.own.limits["cpu"] == "2"


def test_a_damaged_note_is_a_sentence_that_names_the_file(lab: Lab) -> None:
    lab.host.unfinished.begin(USER, "rebuild")
    [note] = (lab._config.paths.state / "unfinished").iterdir()
    note.write_text("{")
    with pytest.raises(LabshellError, match=str(note)):
        lab.settle()


def test_whoever_looks_between_two_names_hears_that_it_is_being_rebuilt(lab: Lab) -> None:
    interface = GatewayInterface(lab.host, IdleStop(lab.host))
    call = Call(Caller(UID, USER, frozenset({"labshell"})))
    lab.containers.instances["elsewhere"] = lab.containers.instances.pop(USER)
    with pytest.raises(NoContainer):
        answer_of(interface.Status(call))
    lab.host.unfinished.begin(USER, "rebuild")
    with lab.host.locks.held(USER), refused(TryAgain, "rebuild-in-progress"):
        answer_of(interface.Status(call))


def test_what_is_said_once_is_not_said_to_whoever_has_hung_up(lab: Lab) -> None:
    interface = GatewayInterface(lab.host, IdleStop(lab.host))
    lab.host.unfinished.tell(USER, "It was interrupted.")
    for has_gone, sentence in ((True, None), (False, "It was interrupted."), (False, None)):
        call = Call(Caller(UID, USER, frozenset({"labshell"})), is_gone=lambda has_gone=has_gone: has_gone)
        answer = answer_of(interface.Status(call))
        notice = answer["status"]["notice"]
        assert (notice and notice["sentence"]) == sentence


def test_what_cannot_be_settled_now_keeps_nobody_from_their_container(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note has a verb whose settling fails; what was asked for is done all the same, and it is tried again."""

    def fail(rebuild: Rebuild, user: str, work: dict[str, Any]) -> None:
        raise LabshellError("engine-refused", "The container engine could not do this.")

    monkeypatch.setattr(Rebuild, "recover", fail)
    lab.host.unfinished.begin(USER, "rebuild")
    call = Call(Caller(UID, USER, frozenset({"labshell"})))
    interface = GatewayInterface(lab.host, IdleStop(lab.host))
    assert answer_of(interface.Start(call))["status"]["state"] == "running"
    assert lab.host.unfinished.work_of(USER) is not None
