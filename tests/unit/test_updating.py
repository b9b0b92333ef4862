"""The login shell and labshell-admin while setup-host installs another version: one sentence, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labshell.admin import main as admin

TREE = Path(__file__).resolve().parents[2]
SENTENCE = "labshell: labshell is being updated; try again in a minute.\n"
IN_CHINESE = "labshell: labshell 正在更新，请过一分钟再试。\n"
MODULES = sorted(
    str(path.relative_to(TREE))
    for pattern in ("*.py", "shell/*.py", "wire/*.py")  # what runs as the user
    for path in (TREE / "labshell").glob(pattern)
)


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A folder as setup-host fills it, with the package in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TREE / "labshell", tmp_path / "lib" / "labshell", ignore=ignored)
    return tmp_path / "lib"


def login(lib: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the start program does with the package in `lib`."""
    text = (TREE / "etc/login-shell").read_text()
    assert text.count('"/opt/labshell/lib"') == 1
    program = lib.parent / "labshell"
    program.write_text(text.replace("/opt/labshell/lib", str(lib)))
    return subprocess.run(
        ["/usr/bin/python3", "-IBSXutf8", str(program), *words],
        capture_output=True, text=True, timeout=30, check=False, env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip


def test_a_whole_package_answers(lib: Path) -> None:
    done = login(lib, "-c", "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "status" in done.stdout


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, SENTENCE),
        ({"LANG": "de_DE.UTF-8"}, SENTENCE),
        ({"LANG": "zh_CN.UTF-8"}, IN_CHINESE),
        ({"LC_ALL": "C", "LANG": "zh_CN"}, IN_CHINESE),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, SENTENCE),
        ({"LANG": "zh_CN.GB18030"}, SENTENCE),
    ],
)
def test_no_package_is_one_sentence_in_the_users_language(
    lib: Path, environment: dict[str, str], sentence: str
) -> None:
    shutil.rmtree(lib)
    done = login(lib, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", sentence)


@pytest.mark.parametrize("kind", ["flat", "cut off", "another version"])
def test_a_package_that_does_not_fit_is_one_sentence(lib: Path, kind: str) -> None:
    package = lib / "labshell"
    if kind == "flat":  # as before there were packages
        shutil.rmtree(package / "shell")
        (package / "shell.py").write_text("def main():\n    print('an old one')\n")
    elif kind == "cut off":
        content = (package / "shell/session.py").read_text()
        (package / "shell/session.py").write_text(content[: content.index("def ") + 5])
    else:
        (package / "places.py").write_text("")
    done = login(lib)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", SENTENCE)


@pytest.mark.parametrize("command", ["help", "status", "keys add"])
def test_a_module_that_is_missing_is_one_sentence_whenever_it_is_loaded(lib: Path, command: str) -> None:
    whole, outcomes = login(lib, "-c", command), set()
    for module in MODULES:
        content = (lib / module).read_bytes()
        (lib / module).unlink()
        done = login(lib, "-c", command)
        (lib / module).write_bytes(content)
        if (done.returncode, done.stdout) != (whole.returncode, whole.stdout) or done.stderr != whole.stderr:
            assert (done.returncode, done.stderr) == (75, SENTENCE), module
        outcomes.add(done.stderr)
    assert outcomes == {whole.stderr, SENTENCE}


def test_the_start_program_is_installed_before_the_package_and_at_once() -> None:
    script = (TREE / "scripts/setup-host").read_text()
    installing = script[script.index("install_labshell()") :]
    places = [installing.index(part) for part in ("install_login_shell\n", "--force-reinstall", 'ln -sfn "$venv"')]
    assert places == sorted(places)
    assert "mv -f /opt/labshell/bin/labshell.new /opt/labshell/bin/labshell" in script


def test_a_module_of_labshell_admin_that_is_missing_is_one_sentence_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["labshell-admin", "template", "list"])
    monkeypatch.setitem(sys.modules, "labshell.admin.local", None)
    monkeypatch.delattr("labshell.admin.local", raising=False)
    with pytest.raises(SystemExit) as ended:
        admin.main()
    assert ended.value.code == 75
    told = capsys.readouterr().err
    assert told.startswith("labshell-admin: labshell is being updated; try again in a minute, or run")
    assert "Traceback" not in told
