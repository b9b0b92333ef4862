"""Files of root's: old content or new, never half; no link followed, no wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labshell import files
from labshell.errors import LabshellError, TryAgain


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read(path) is None
    for content in (b"one", b"two"):
        files.write(path, content, 0o600)
        assert files.read(path) == content
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_failure_in_the_middle_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(LabshellError, match="No space left"):
            files.write(path, b"new")
    assert files.read(path) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


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
    with pytest.raises(LabshellError, match="no other name"):
        files.read(tmp_path / "hard")


def test_writing_over_a_link_replaces_the_link_and_not_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"victim")
    (tmp_path / "link").symlink_to(target)
    files.write(tmp_path / "link", b"new")
    assert target.read_bytes() == b"victim"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_others_can_write_to_is_refused(tmp_path: Path) -> None:
    files.ensure_folder(tmp_path / "new")
    files.ensure_folder(tmp_path / "new")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("open", "link"):
        with pytest.raises(LabshellError, match="belongs to root"):
            files.ensure_folder(tmp_path / name)


def test_a_lock_that_is_held_is_waited_for_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with files.locked(tmp_path / "lock"), pytest.raises(TryAgain), files.locked(tmp_path / "lock"):
        pytest.fail("the lock was given twice")
    with files.locked(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
