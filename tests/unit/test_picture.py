"""The picture of README.md is the first screen of this tree's login shell."""

from __future__ import annotations

from xml.etree import ElementTree

import picture
import pyte
import pytest

from labshell.shell import card, menu
from labshell.shell.card import Style


@pytest.fixture(scope="module")
def screen() -> pyte.Screen:
    return picture.screen()


def test_the_picture_in_the_tree_is_what_the_login_shell_shows_now(screen: pyte.Screen) -> None:
    """After a change: scripts/picture."""
    assert picture.PICTURE.read_text() == picture.svg(screen)


def test_its_text_is_the_card_the_menu_and_the_prompt(screen: pyte.Screen) -> None:
    plain = Style(colour=False)
    text = card.card(picture.STATUS, plain) + menu.short_choices(picture.COLUMNS, plain) + picture.PROMPT
    assert picture.text_of(screen).splitlines() == [line.rstrip() for line in text.splitlines()]


def test_it_is_xml_with_each_line_of_the_screen() -> None:
    root = ElementTree.parse(picture.PICTURE).getroot()  # noqa: S314 - our own file
    words = " ".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "ssh -p 20010 alice@gpu1" in words
    assert "labshell>" in words


def test_the_readme_shows_it() -> None:
    assert "(docs/first-screen.svg)" in (picture.TREE / "README.md").read_text()
