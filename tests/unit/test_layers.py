"""The layers of docs/architecture.md, held against the imports."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PACKAGE = TREE / "labshell"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
ONLY_IN = {
    "pylxd": {"engine", "containers"},
    "requests": {"engine", "containers"},
    "iptc": {"forwarding"},
    "psutil": {"machine", "ports", "accounts"},
    "readline": {"menu"},
    "subprocess": {"accounts", "guard", "programs", "templates"},
}


def layers() -> list[set[str]]:
    """The rows of the table, from the people down to the ground."""
    rows = re.findall(r"^\| [a-z ]+ \| (`.*?) \|", (TREE / "docs/architecture.md").read_text(), re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def imports(module: str) -> set[str]:
    """Everything a module imports, wherever in it: "labshell.x" for our own."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
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


def test_the_login_shell_starts_with_little_of_the_standard_library() -> None:
    script = f"import sys; sys.path.append({str(TREE)!r}); import labshell.shell; print(*sys.modules)"
    done = subprocess.run(["/usr/bin/python3", "-ISc", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
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
    assert "labshell" in loaded
