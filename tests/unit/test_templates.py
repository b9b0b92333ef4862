"""Templates: which of the machine's package sources a root file system is built from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labshell.engine.recipes import EXTRAS, MINIMAL, TOOLS, USUAL, Recipe
from labshell.engine.templates import apt_sources, mmdebstrap


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


def asked(recipe: Recipe) -> list[str]:
    return mmdebstrap(Path("/t.tar"), recipe, "bookworm", [Path("/etc/apt/sources.list")])


def written(recipe: Recipe, tmp_path: Path) -> dict[str, str]:
    """The files that the hooks write, in a folder in the place of the root file system."""
    for folder in ("etc/apt/apt.conf.d", "etc/network", "etc/dhcp", "etc/profile.d", "etc/ssh", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    for option in asked(recipe):
        name, _, hook = option.partition("=")
        if name.endswith("-hook") and not hook.startswith("chroot"):
            subprocess.run(["/bin/sh", "-euc", hook, "hook", str(tmp_path)], check=True)
    return {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}


def test_the_usual_recipe_has_tools_package_lists_and_locales(tmp_path: Path) -> None:
    argv = asked(USUAL)
    assert set(f"{MINIMAL} {TOOLS}".split()) == set(argv[2].removeprefix("--include=").split(","))
    assert "--skip=cleanup/apt/lists" in argv
    assert any(option.endswith("locale-gen") for option in argv)
    found = written(USUAL, tmp_path)
    assert {"en_US.UTF-8 UTF-8", "zh_CN.UTF-8 UTF-8"} <= set(found["etc/locale.gen"].splitlines())
    assert found["etc/apt/apt.conf.d/60labshell"].splitlines() == [
        'Acquire::GzipIndexes "true";',
        'APT::Periodic::Update-Package-Lists "1";',
    ]


def test_a_minimal_recipe_leaves_them_out_and_keeps_what_is_added(tmp_path: Path) -> None:
    recipe = Recipe(extras=("docker",), minimal=True)
    assert set(recipe.packages) == set(f"{MINIMAL} {EXTRAS['docker']}".split())
    assert not any("locale-gen" in option or "apt/lists" in option for option in asked(recipe))
    found = written(recipe, tmp_path)
    assert "etc/locale.gen" not in found
    assert "etc/apt/apt.conf.d/60labshell" not in found


@pytest.mark.parametrize(("sent", "seen"), [({}, "C.UTF-8"), ({"LANG": "zh_CN.UTF-8"}, "zh_CN.UTF-8")])
def test_a_login_shell_has_the_language_that_the_client_sends_or_c_utf_8(
    tmp_path: Path, sent: dict[str, str], seen: str
) -> None:
    written(Recipe(minimal=True), tmp_path)
    script = f'. {tmp_path}/etc/profile.d/labshell-locale.sh; printf %s "$LANG"'
    assert subprocess.run(["/bin/sh", "-euc", script], env=sent, stdout=subprocess.PIPE).stdout == seen.encode()
