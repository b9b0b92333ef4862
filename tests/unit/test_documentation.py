"""The documents against the code: whatever they name exists, and is called what they call it."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from labshell import config, errors
from labshell.admin import main as admin
from labshell.shell import verbs

TREE = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (TREE / "docs").glob("*.md"))]
CITATION = re.compile(r"(tests/\w+/\w+\.py)::(\w+)")


def text_of(name: str) -> str:
    return (TREE / name).read_text()


def section(name: str, heading: str) -> str:
    """One section of a document, without the sections below it."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(name), re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section {heading}"
    return found.group(1)


def table_names(text: str) -> set[str]:
    """The names in backquotes in the first column of a section's table."""
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)}


def code(name: str) -> list[str]:
    """What a document shows as code: the lines of its blocks, and what stands in backquotes."""
    text = text_of(name)
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*"".join(blocks).splitlines(), *re.findall(r"`([^`]+)`", prose)]


@pytest.mark.parametrize("name", ["docs/security.md", "tests/system/test_documented_commands.py"])
def test_every_test_that_is_cited_exists(name: str) -> None:
    cited = CITATION.findall(text_of(name))
    assert cited
    for file, test in cited:
        names = {node.name for node in ast.parse(text_of(file)).body if isinstance(node, ast.FunctionDef)}
        assert test in names, f"{file}::{test}"


def test_every_promise_is_followed_by_a_test() -> None:
    promises = re.split(r"^\*\*P\d+\. ", section("docs/security.md", "Promises"), flags=re.MULTILINE)[1:]
    assert len(promises) > 5
    assert all(CITATION.search(promise) for promise in promises)


def test_every_field_reports_row_has_its_test_and_every_test_its_row() -> None:
    """A name ends in … where its rest is left out."""
    tree = ast.parse(text_of("tests/system/test_field_reports.py"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names |= {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    names = {name for name in names if name.startswith("test_")}
    text = text_of("docs/field-reports.md")
    cited = {word: word.rstrip("…") for word in re.findall(r"`(test_\w+…?)`", text)}
    assert [word for word, start in cited.items() if not any(name.startswith(start) for name in names)] == []
    assert [name for name in names if not any(name.startswith(start) for start in cited.values())] == []
    files = [word for word in re.findall(r"`(test_\w+\.py)`", text) if not (TREE / "tests/system" / word).exists()]
    assert files == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_and_every_file_that_is_named_leads_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", text_of(name)) if "://" not in link]
    here = (TREE / name).parent
    assert [link for link in links if not (here / link).exists()] == []
    named = re.findall(r"(?<![\w/.])(?:scripts|tests|etc|docs)/[\w./-]*\w", " ".join(code(name)))
    assert [path for path in named if not (TREE / path.partition("::")[0]).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_administrators_command_is_one(name: str) -> None:
    for shown in code(name):
        command = re.match(r"(?:sudo )?(?:labshell-admin|scripts/(?=add-user|remove-user)) ?(.+)", shown)
        if command and "NAME" not in command.group(1):
            admin.parser().parse_args(shlex.split(command.group(1), comments=True))  # SystemExit says what is wrong


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_researchers_command_is_one(name: str) -> None:
    for shown in code(name):
        command = re.match(r"ssh (?:-t )?(?:alice@)?gpu1 ([a-z][^#<>|]*)", shown)
        if command:
            verbs.parse(command.group(1))


def test_the_guide_has_the_same_chapters_in_both_languages() -> None:
    english, chinese = (text_of(f"docs/user-guide{language}.md") for language in ("", ".zh-CN"))
    assert len(re.findall("^## ", english, re.MULTILINE)) == len(re.findall("^## ", chinese, re.MULTILINE))


GUIDES = pytest.mark.parametrize(
    ("guide", "for_scripts"), [("docs/user-guide.md", "For scripts"), ("docs/user-guide.zh-CN.md", "写脚本")]
)


@GUIDES
def test_the_researchers_guide_names_every_verb(guide: str, for_scripts: str) -> None:
    assert for_scripts in text_of(guide)
    words = {word for shown in code(guide) for word in shown.split()}
    assert [verb.name for verb in verbs.VERBS if verb.name not in words] == []


@GUIDES
def test_the_researchers_guide_has_every_exit_status(guide: str, for_scripts: str) -> None:
    listed = set(map(int, re.findall(r"^\| (\d+) \|", section(guide, for_scripts), re.MULTILINE)))
    ours = {kind.status for kind in errors.KINDS.values()} | {0, 130}
    assert listed == ours | {255}  # ssh's own


def test_the_administrators_guide_has_every_setting() -> None:
    assert table_names(section("docs/admin-guide.md", "Settings")) == config.KEYS


def test_the_journals_lines_are_called_what_the_daemon_calls_them() -> None:
    events = set()
    for path in (TREE / "labshell").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.") and node.args:
                events |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    assert table_names(section("docs/admin-guide.md", "The journal")) <= events


def test_every_module_that_the_architecture_names_exists() -> None:
    text = text_of("docs/architecture.md")
    flows = section("docs/architecture.md", "Three flows")
    named = re.findall(r"`(\w+/\w+\.py)`", flows)
    assert len(set(named)) > 20
    assert [name for name in named if not (TREE / "labshell" / name).is_file()] == []
    packages = re.findall(r"^- \*\*`(\w+)`\*\* (.*?)(?=^- \*\*|^\n)", text, re.MULTILINE | re.DOTALL)
    assert {package for package, _ in packages} == {
        path.parent.name for path in (TREE / "labshell").glob("*/__init__.py")
    }
    missing = [
        f"{package}/{name}"
        for package, about in packages
        for name in re.findall(r"`(\w+\.py)`", about)
        if not (TREE / "labshell" / package / name).is_file()
    ]
    assert missing == []
