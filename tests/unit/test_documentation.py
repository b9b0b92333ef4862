"""The documentation names what is there: files, tests, commands, verbs, keys."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from labshell import admin, verbs
from labshell.config import Config

TREE = Path(__file__).resolve().parents[2]
DOCUMENTS = [TREE / "README.md", TREE / "CHANGELOG.md", *sorted((TREE / "docs").glob("*.md"))]


def commands(document: Path) -> list[str]:
    """The lines of the fenced blocks, without their comments."""
    blocks = re.findall(r"^```\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    return [line.split("   #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert (document.parent / link).exists(), link


def test_every_test_that_is_cited_exists() -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (TREE / "docs/security.md").read_text()):
        functions = {
            node.name for node in ast.walk(ast.parse((TREE / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert not name or name in functions, f"{file}::{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_exists(document: Path) -> None:
    for line in commands(document):
        words = line.removeprefix("sudo ").split()
        if words[0].startswith("scripts/"):
            assert (TREE / words[0]).exists(), line
        elif words[0] == "labshell-admin":
            options = [word.replace("dan.pub", "-") for word in words[1:]]
            assert admin.parser().parse_args(options), line
        elif words[0] == "ssh" and "alice@gpu1" in words and "-p" not in words:
            given = line.partition("alice@gpu1")[2].partition(">>")[0].partition("<")[0].strip()
            assert not given or verbs.parse(given), line


def test_every_key_of_the_configuration_that_is_named_exists() -> None:
    keys = {item.name for item in fields(Config)}
    for document in DOCUMENTS:
        assert set(re.findall(r"`(\w+) = \w+`", document.read_text())) <= keys
