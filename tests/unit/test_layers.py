"""The layers of docs/architecture.md, held against the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PACKAGE = TREE / "labshell"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
ONLY_IN = {
    "pylxd": {"engine", "containers", "network", "inside"},
    "requests": {"engine", "containers"},
    "psutil": {"machine", "ports", "accounts", "probe", "host_services"},
    "readline": {"menu"},
    "subprocess": {"host_program", "programs", "templates"},
}


def layers() -> list[set[str]]:
    """The rows of the table, from the people down to the ground."""
    rows = re.findall(r"^\| [a-z ]+ \| (`.*?) \|", (TREE / "docs/architecture.md").read_text(), re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def imports(module: str) -> set[str]:
    """Everything a module imports, wherever in it: "labshell.x" for our own."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        assert not getattr(node, "level", 0), f"{module} has a relative import, which this reading would miss"
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "labshell":
            found |= {f"labshell.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_module_is_in_exactly_one_layer() -> None:
    assert sorted(module for row in layers() for module in row) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_layer_and_those_below_only(module: str) -> None:
    rows = layers()
    own = next(number for number, row in enumerate(rows) if module in row)
    allowed = set().union(*rows[own:]) | {"__version__"}
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("labshell.")}
    assert ours <= allowed


@pytest.mark.parametrize("library", ONLY_IN)
def test_an_outside_thing_is_touched_by_its_own_modules_only(library: str) -> None:
    users = {module for module in MODULES if library in {name.split(".")[0] for name in imports(module)}}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("module", ["shell", "menu", "session", "streams"])
def test_what_runs_as_the_user_imports_the_standard_library_and_ours_only(module: str) -> None:
    assert {name.split(".")[0] for name in imports(module)} <= sys.stdlib_module_names | {"labshell"}


@pytest.mark.parametrize("module", ["re", "enum", "json", "socket", "signal", "subprocess", "gettext", "typing"])
def test_a_login_does_not_wait_for_what_is_slow_to_import(module: str) -> None:
    look = f"import sys; sys.path.append({str(TREE)!r}); import labshell.shell; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-ISc", look], check=False).returncode == 0


def test_the_table_has_its_rows_and_the_documents_sentence_about_libraries_is_the_one_tested() -> None:
    assert len(layers()) == 6
    text = " ".join((TREE / "docs/architecture.md").read_text().split())
    assert (
        "pylxd is imported in `engine`, `containers`, `network` and `inside` only, "
        "psutil in `machine`, `host_services`, `ports`, `accounts` and `probe` only" in text
    )


def test_decisions_reach_nothing_outside() -> None:
    outside = {
        "os",
        "io",
        "socket",
        "subprocess",
        "time",
        "random",
        "secrets",
        "pathlib",
        "shutil",
        "tempfile",
        "threading",
    }
    row = next(row for row in layers() if "policy" in row)
    for module in row:
        assert not {name.split(".")[0] for name in imports(module)} & outside, module


# A new process each: what is loaded before the import does not count, and nothing is compiled into the tree.
LOADED = f"import sys; before = set(sys.modules); sys.path.append({str(TREE)!r}); import labshell.shell; print(*set(sys.modules) - before)"


def loaded_by_the_login_shell() -> set[str]:
    done = subprocess.run(["/usr/bin/python3", "-ISBc", LOADED], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_login_shell_starts_without_any_library() -> None:
    loaded = loaded_by_the_login_shell()
    assert "labshell" in loaded
    assert loaded <= sys.stdlib_module_names | {"labshell"}


def test_the_login_shell_starts_with_little_of_the_standard_library() -> None:
    loaded = loaded_by_the_login_shell()
    assert not loaded & {
        "argparse",
        "dataclasses",
        "typing",
        "logging",
        "subprocess",
        "pathlib",
        "readline",
        "threading",
    }
