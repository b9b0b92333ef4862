"""Where labshell lies on the host is said once; the shipped files, which cannot ask, say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from labshell import places
from labshell.config import Config, Paths

TREE = Path(__file__).resolve().parents[2]
FOLDERS = (places.ETC, places.OPT, places.RUN, places.STATE, places.LOG, places.PUBLIC)
MODULES = [path for path in sorted((TREE / "labshell").rglob("*.py")) if path.stem != "places"]


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(TREE)) for path in MODULES])
def test_no_other_module_says_where_labshell_lies(path: Path) -> None:
    texts = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert [node.value for node in texts if isinstance(node.value, str) and node.value.startswith(FOLDERS)] == []


def test_the_daemon_listens_and_writes_where_the_login_shell_looks() -> None:
    paths = Paths()
    assert (str(paths.user_socket), str(paths.admin_socket)) == (places.USER_SOCKET, places.ADMIN_SOCKET)
    assert (str(paths.language_file), str(paths.ports)) == (places.LANGUAGE_FILE, places.PORTS)
    assert Config().archive == places.ARCHIVE


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("etc/systemd/labshelld.socket", f"ListenStream={places.USER_SOCKET}"),
        ("etc/systemd/labshelld-admin.socket", f"ListenStream={places.ADMIN_SOCKET}"),
        ("etc/sshd_config.d/00-labshell.conf", f"AuthorizedKeysFile {places.KEYS}/%u"),
        ("etc/sshd_config.d/00-labshell.conf", f"ForceCommand {places.LOGIN_SHELL} --ssh"),
    ],
)
def test_a_shipped_file_says_the_same(file: str, line: str) -> None:
    assert line in [text.strip() for text in (TREE / file).read_text().splitlines()]
