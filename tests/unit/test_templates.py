"""Templates: which of the machine's package sources a root file system is built from."""

from __future__ import annotations

from pathlib import Path

from labshell.templates import apt_sources


def test_only_sources_of_the_machines_own_release_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("# deb http://x bookworm main\n")
    (folder / "0000debian.sources").write_text(
        "Types: deb\nURIs: http://x\nSuites: bookworm bookworm-updates\nComponents: main\n"
    )
    (folder / "docker.list").write_text("deb [arch=amd64] http://x bookworm stable\n")
    (folder / "old.list").write_text("deb http://x bullseye main\n")
    (folder / "off.sources.disabled").write_text("deb http://x bookworm main\n")
    assert apt_sources(tmp_path, "bookworm") == [folder / "0000debian.sources"]
    assert apt_sources(tmp_path, "") == []
    (tmp_path / "sources.list").write_text("deb http://x bookworm main contrib\n")
    assert apt_sources(tmp_path, "bookworm") == [tmp_path / "sources.list", folder / "0000debian.sources"]
