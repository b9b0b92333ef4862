"""The user's language: English, as it stands in the code, or a catalogue in labshell/locale.

A text is translated where it is shown, as a whole template and never in pieces. English costs a login nothing:
gettext is loaded for another language only.
"""

from __future__ import annotations

import os

from labshell import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CATALOGUES = os.path.join(os.path.dirname(__file__), "locale")
ENGLISH, CHINESE = "en", "zh_CN"
LANGUAGES = (ENGLISH, CHINESE)
SIMPLIFIED = ("zh", "zh_cn", "zh_sg", "zh_hans", "zh_hans_cn")
# What ssh may send and a program inside gets: LC_* by name, as the drop-in for sshd lists them.
LOCALE_NAMES = (
    "LANG", "LANGUAGE", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT",
    "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
)  # fmt: skip
UNSAID = ("c", "posix")


def choose(environment: Mapping[str, str], configured: str = "") -> str:
    """One of LANGUAGES: as ssh sent it, else as configured. Compared with the list and used for nothing else."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        language, _, charset = environment.get(name, "")[:40].partition("@")[0].lower().partition(".")
        if language and language not in UNSAID:
            readable = charset in ("", "utf-8", "utf8")
            return CHINESE if language in SIMPLIFIED and readable else ENGLISH
    return configured if configured in LANGUAGES else ENGLISH


def configured() -> str:
    """The lab's language, as the daemon has left it; empty if it has not."""
    try:
        with open(places.LANGUAGE_FILE, encoding="ascii", errors="replace") as file:
            return file.read(40).strip()
    except OSError:
        return ""


def mark(text: str) -> str:
    """`text` as it is: it stands in a table here and is translated where it is shown."""
    return text


def _as_it_is(text: str) -> str:
    return text


_catalogue: Callable[[str], str] = _as_it_is


def use(language: str) -> None:
    """Show everything in one of LANGUAGES from here on."""
    global _catalogue
    _catalogue = _as_it_is
    if language != ENGLISH:
        import gettext

        with open(os.path.join(CATALOGUES, language, "LC_MESSAGES", "labshell.mo"), "rb") as file:
            _catalogue = gettext.GNUTranslations(file).gettext


def _(text: str) -> str:
    """`text`, a template as it stands in the code, in the user's language."""
    return _catalogue(text) if text else text
