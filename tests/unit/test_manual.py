"""The manual page and the completion of labshell-admin: made from its one list of commands, and up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from labshell.admin import main as admin

TREE = Path(__file__).resolve().parents[2]
MADE = ("man/labshell-admin.8", "bash-completion/labshell-admin")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which scripts/manual has just written both."""
    folder = tmp_path_factory.mktemp("etc")
    for name in MADE:
        (folder / name).parent.mkdir()
    subprocess.run([TREE / "scripts/manual", Path(sys.executable).parent, folder], check=True, timeout=60)
    return folder


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its usage a little differently elsewhere")
@pytest.mark.parametrize("name", MADE)
def test_what_lies_in_the_tree_is_what_the_commands_say_now(anew: Path, name: str) -> None:
    """After a change: scripts/manual."""
    assert (TREE / "etc" / name).read_text() == (anew / name).read_text()


def commands() -> set[str]:
    """Every command's name."""
    [choices] = [action.choices for action in admin.parser()._actions if action.choices]
    return set(choices)


@pytest.mark.parametrize("name", MADE)
def test_every_command_is_in_it(name: str) -> None:
    text = (TREE / "etc" / name).read_text().replace("\\-", "-")
    assert [command for command in commands() if command not in text] == []


def test_the_completion_is_bash_that_parses() -> None:
    subprocess.run(["bash", "-n", TREE / "etc" / MADE[1]], check=True, timeout=30)
