"""The packages of docs/architecture.md, held against the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PACKAGE = TREE / "labshell"
GROUND = "labshell"  # the modules beside the packages
# "engine.client" for labshell/engine/client.py, "errors" for labshell/errors.py
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
PACKAGES = {path.parent.name for path in MODULES.values()}
ONLY_IN = {
    "pylxd": {"engine.client"},
    "requests": {"engine.client"},
    "psutil": {"host.machine", "host.ports", "host.accounts", "host.probe", "host.host_services"},
    "readline": {"shell.menu"},
    "subprocess": {"host.host_program", "engine.programs", "engine.templates"},
}
PURE = {module for module in MODULES if module.startswith("model.")} | {
    "admin.note",
    "admin.tables",
    "admin.user_card",
    "admin.class_list",
    "doctor.findings",
    "engine.invocation",
    "engine.records",
    "engine.recipes",
    "forwarding.guard_rules",
    "forwarding.nft_rules",
    "forwarding.packets",
    "forwarding.rules",
    "operations.plans",
    "shell.answers",
    "shell.card",
    "shell.clients",
    "shell.laptop",
    "shell.mistyped",
    "shell.verbs",
    "shown",
    "texts",
}


def layers() -> list[set[str]]:
    """The rows of the table, from the programs down to the ground."""
    text = (TREE / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", text.split("## Packages")[1].split("\n## ")[0], re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def imports(path: Path) -> set[str]:
    """Everything a module imports, wherever in it: "labshell.x" or "labshell.package.x" for our own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path} has a relative import, which this reading would miss"
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "labshell":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def package_of(imported: str) -> str:
    """The package of one of our own: "engine" for labshell.engine.client.Engine."""
    name = imported.split(".")[1]
    return name if name in PACKAGES else GROUND


def own(path: Path) -> set[str]:
    """The packages that a module imports from."""
    return {package_of(name) for name in imports(path) if name.startswith("labshell.")}


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_every_package_is_in_exactly_one_layer() -> None:
    assert sorted(package for row in layers() for package in row) == sorted(PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_package_and_the_layers_below_only(module: str) -> None:
    path, rows = MODULES[module], layers()
    number = next(number for number, row in enumerate(rows) if path.parent.name in row)
    assert own(path) <= {path.parent.name}.union(*rows[number + 1 :])


@pytest.mark.parametrize("library", ONLY_IN)
def test_an_outside_thing_is_touched_by_its_own_modules_only(library: str) -> None:
    assert {module for module, path in MODULES.items() if library in libraries(path)} <= ONLY_IN[library]


def test_the_time_of_day_is_asked_for_in_one_place() -> None:
    asks = re.compile(r"\btime\.time\(|\bdatetime\.(?:now|utcnow|today)\(|\bdate\.today\(")
    assert {module for module, path in MODULES.items() if asks.search(path.read_text())} == {"host.clock"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("shell.")])
def test_what_runs_as_the_user_imports_the_standard_library_the_wire_and_the_ground_only(module: str) -> None:
    assert libraries(MODULES[module]) <= sys.stdlib_module_names | {"labshell"}
    assert own(MODULES[module]) <= {"shell", "wire", GROUND}


@pytest.mark.parametrize("module", ["re", "enum", "json", "socket", "signal", "subprocess", "gettext", "typing", "labshell.shell.actions", "labshell.shell.answers"])
def test_a_login_does_not_wait_for_what_is_slow_to_import(module: str) -> None:
    look = f"import sys; sys.path.append({str(TREE)!r}); import labshell.shell.main; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-ISc", look], check=False).returncode == 0


def test_the_documents_sentence_about_libraries_is_the_one_tested() -> None:
    text = " ".join((TREE / "docs/architecture.md").read_text().split())
    for library in ("pylxd", "psutil"):
        found = re.search(rf"{library} (?:is imported )?in ((?:`[\w.]+`(?:, | and )?)+) only", text)
        assert found
        assert set(re.findall(r"`([\w.]+)`", found[1])) == ONLY_IN[library]


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_decision_reaches_nothing_outside(module: str) -> None:
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
    assert not libraries(MODULES[module]) & outside


def test_no_module_is_over_400_lines_and_no_class_over_250() -> None:
    for module, path in MODULES.items():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 250, f"{module}.{node.name}"


# A new process each: what is loaded before the import does not count, and nothing is compiled into the tree.
LOADED = f"import sys; before = set(sys.modules); sys.path.append({str(TREE)!r}); import labshell.shell.main; print(*set(sys.modules) - before)"


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
