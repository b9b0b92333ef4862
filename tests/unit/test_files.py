"""Files of root's: old content or new, never half; no link followed, no wait."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused

from labshell.errors import LabshellError, TryAgain
from labshell.host import files


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read(path) is None
    for content in (b"one", b"two"):
        files.write(path, content, 0o600)
        assert files.read(path) == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


class Disk:
    """A disk that has a failure at one call: none reaches the real one."""

    def __init__(self, call: str, failure: BaseException) -> None:
        self.call, self.failure = call, failure

    def spoil(self, patched: pytest.MonkeyPatch) -> None:
        if self.call == "write":
            patched.setattr(files, "open", self.opened, raising=False)
        else:
            patched.setattr(os, self.call, self.fail)

    def fail(self, *_: object, **__: object) -> None:
        raise self.failure

    def opened(self, descriptor: int, mode: str) -> io.FileIO:
        file = io.FileIO(descriptor, mode)
        file.write = self.fail  # type: ignore[method-assign]
        return file


CALLS = ["open", "fchmod", "write", "fsync", "rename"]


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("call", CALLS)
def test_a_failure_in_the_middle_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        files.write(path, old)
    before = os.listdir(tmp_path)
    with monkeypatch.context() as patched:
        Disk(call, OSError(28, "No space left on device")).spoil(patched)
        with pytest.raises(LabshellError, match=re.escape(str(path)) + ".*No space left"):
            files.write(path, b"new")
    assert files.read(path) == old
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("call", CALLS)
def test_an_interruption_in_the_middle_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")
    with monkeypatch.context() as patched:
        Disk(call, KeyboardInterrupt()).spoil(patched)
        with pytest.raises(KeyboardInterrupt):
            files.write(path, b"new")
    assert files.read(path) == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(descriptor: int) -> None:
        calls.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')).partition('.file.')[1]}")
        fsync(descriptor)

    def seen_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    files.write(tmp_path / "file", b"new")
    assert calls == ["fsync .file.", "rename", "fsync "]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077 if mode == 0o644 else 0)
    try:
        files.write(tmp_path / "file", b"new", mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == mode


def test_writing_where_there_is_no_folder_or_over_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "file", tmp_path / "folder"):
        with pytest.raises(LabshellError, match=re.escape(str(path))):
            files.write(path, b"new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_of_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(tmp_path / "file", b"old")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with refused(LabshellError, "file-not-trusted"):
        files.read(tmp_path / "file")


def test_refused_files_are_closed_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(LabshellError):
            files.read(tmp_path / "folder")
    assert os.listdir("/proc/self/fd") == before


def test_what_is_too_large_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"9" * (files.LARGEST_BYTES + 1))
    with refused(LabshellError, "file-too-large"):
        files.read(tmp_path / "file")


def test_removing_is_harmless_twice_and_takes_a_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"victim")
    (tmp_path / "link").symlink_to("target")
    for _ in range(2):
        files.remove(tmp_path / "link")
    assert os.listdir(tmp_path) == ["target"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(LabshellError, match="folder cannot be removed"):
        files.remove(tmp_path / "folder")


def test_links_fifos_and_folders_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"secret")
    (tmp_path / "symlink").symlink_to(target)
    (tmp_path / "fifo").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("symlink", "fifo", "folder"):
        with pytest.raises(LabshellError, match="regular file"):
            files.read(tmp_path / name)
    (tmp_path / "hard").hardlink_to(target)
    with refused(LabshellError, "file-not-trusted"):
        files.read(tmp_path / "hard")


def test_writing_over_a_link_replaces_the_link_and_not_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"victim")
    (tmp_path / "link").symlink_to(target)
    files.write(tmp_path / "link", b"new")
    assert target.read_bytes() == b"victim"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_is_made_with_its_mode_and_its_parents(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "parent" / "new"
    before = os.umask(0o077)
    try:
        for _ in range(2):
            files.ensure_folder(path, mode)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize(
    "kind", ["others may write", "group may write", "link to a folder", "dangling link", "file", "FIFO"]
)
def test_what_is_no_folder_of_roots_alone_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "path"
    (tmp_path / "target").mkdir()
    if kind.endswith("may write"):
        path.mkdir()
        path.chmod(0o757 if kind.startswith("others") else 0o775)
    elif kind.endswith("link"):
        path.symlink_to("nowhere")
    elif kind.startswith("link"):
        path.symlink_to("target")
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.write_bytes(b"")
    before = path.lstat()
    with pytest.raises(LabshellError, match=re.escape(str(path)) + ".*owned by root"):
        files.ensure_folder(path)
    assert path.lstat() == before
    assert sorted(os.listdir(tmp_path)) == ["path", "target"]


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.ensure_folder(tmp_path / "folder")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with refused(LabshellError, "folder-not-trusted"):
        files.ensure_folder(tmp_path / "folder")


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LabshellError, match="file/folder cannot be made: Not a directory"):
        files.ensure_folder(tmp_path / "file" / "folder")


def test_a_lock_that_is_held_is_waited_for_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with files.locked(tmp_path / "lock"), pytest.raises(TryAgain), files.locked(tmp_path / "lock"):
        pytest.fail("the lock was given twice")
    with files.locked(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


HOLD = """
import sys
from pathlib import Path
from labshell.host import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_that_another_process_holds_is_waited_for_within_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    path = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with refused(TryAgain, "host-file-locked"), files.locked(path):
            pytest.fail("the lock was given twice")
        other.communicate()
    with files.locked(path):
        pass


def test_a_lock_is_free_again_after_an_error_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "lock"):
        raise ZeroDivisionError
    with files.locked(tmp_path / "lock"):
        pass
