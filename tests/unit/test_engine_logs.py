"""The engine's log files of a deleted container: where they are, and that nothing else is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from labshell.engine import engine_logs


@pytest.mark.parametrize(
    ("socket", "folder"),
    [
        ("/var/lib/lxd/unix.socket", "/var/log/lxd/alice"),
        ("/var/snap/lxd/common/lxd/unix.socket", "/var/snap/lxd/common/lxd/logs/alice"),
        ("/srv/lxd/unix.socket", "/srv/lxd/logs/alice"),
    ],
)
def test_the_folder_belongs_to_the_engine_that_is_asked(socket: str, folder: str) -> None:
    assert engine_logs.folder_of(Path(socket), "alice") == Path(folder)


@pytest.mark.parametrize("name", ["alice", "alice--old"])
def test_the_files_of_one_container_are_removed_and_no_others(tmp_path: Path, name: str) -> None:
    for folder in (name, "bob"):
        (tmp_path / "logs" / folder).mkdir(parents=True)
        (tmp_path / "logs" / folder / "lxc.log").touch()
    for _ in range(2):  # there is nothing left to remove the second time
        engine_logs.remove(tmp_path / "unix.socket", name)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["bob"]


@pytest.mark.parametrize("name", ["", ".", "..", "../logs", "bob/..", "/"])
def test_a_name_that_is_no_containers_removes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "logs" / "bob").mkdir(parents=True)
    engine_logs.remove(tmp_path / "unix.socket", name)
    assert (tmp_path / "logs" / "bob").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "logs" / "alice").symlink_to(tmp_path / "kept")
    engine_logs.remove(tmp_path / "unix.socket", "alice")
    assert (tmp_path / "kept").exists()
