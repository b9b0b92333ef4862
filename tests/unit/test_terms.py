"""The words of docs/terms.md: what people read uses them, and none of the expressions that they replace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from labshell.admin import main as admin
from labshell.model.settings import SETTINGS
from labshell.shell import verbs

TREE = Path(__file__).resolve().parents[2]
CATALOGUE = TREE / "labshell/locale/zh_CN/LC_MESSAGES/labshell.po"
TERMS = "docs/terms.md"
# One of these is a mistake wherever people read it: riddles for user, administrator and container; metaphors for
# standard terms; sentences without a subject. Between words any white space counts.
FORBIDDEN = (
    "nobody", "somebody", "whoever", "everybody", "person", "persons", "people", "just now", "by itself", "has to be", "have to be",
    "the door", "hard way", "what there is", "the engine is away", "is said", "pulse", "cable", "way out", "ways out",
    "rests", "or resting", "rest no longer", "not settled", "comes to no end", "going on on", "gives you one",
    "unless: keep", "let you in", "lets you in", "changed what when", "options come before", "no other name",
    "as many machines", "breaks out", "beside their ports", "harmless twice", "a letter first", "an account of the host itself",
    "a thousand times as long", "on which side of the change", "Containers start again", "as it has to be", "as they should be",
)  # fmt: skip
_EXPRESSIONS = "|".join(r"\s+".join(map(re.escape, text.split())) for text in FORBIDDEN)
PATTERN = re.compile(rf"\b({_EXPRESSIONS})\b", re.IGNORECASE)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`|[\w.-]*/[\w./-]+", re.MULTILINE | re.DOTALL)
DOCUMENTS = ["README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (TREE / "docs").glob("*.md"))]
OTHERS = ["etc/labshell.toml", "etc/man/labshell-admin.8"]


def found(text: str) -> list[str]:
    """Each expression that should not be there, with what stands around it; commands, paths and blocks are not read."""
    prose = CODE.sub("", text)
    return [" ".join(prose[max(0, hit.start() - 40) : hit.end() + 40].split()) for hit in PATTERN.finditer(prose)]


def helps() -> str:
    topics = "".join(verbs.help_text(verb.name) for verb in verbs.VERBS)
    about = "\n".join(setting.about for setting in SETTINGS.values())
    return "\n".join([verbs.help_text(), topics, about, admin.parser().format_help()])


@pytest.mark.parametrize("name", [*DOCUMENTS, *OTHERS])
def test_no_document_uses_an_expression_that_is_replaced(name: str) -> None:
    assert found((TREE / name).read_text()) == []


def test_no_help_uses_one() -> None:
    assert found(helps()) == []


def test_no_sentence_of_the_catalogue_uses_one() -> None:
    with CATALOGUE.open("rb") as file:
        sentences = [str(message.id) for message in read_po(file, locale="zh_CN") if message.id]
    assert len(sentences) > 200
    assert {sentence: found(sentence) for sentence in sentences if found(sentence)} == {}


def test_the_search_finds_what_it_is_for() -> None:
    assert found("It is away for somebody\nelse, just\nnow.") != []
    assert found("`nobody` and tests/x.py::test_that_nobody_can") == []


def test_each_term_stands_beside_its_chinese_one() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", (TREE / TERMS).read_text(), re.MULTILINE)[2:]
    assert len(rows) > 20
    assert [english for english, chinese, *_ in rows if not re.search("[\u4e00-\u9fff]", chinese)] == []
