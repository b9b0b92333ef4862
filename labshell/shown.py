"""How text from elsewhere is shown: never with a character that could drive the reader's terminal. Pure."""

from __future__ import annotations

from labshell.language import _

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping
    from typing import Any

    from labshell.errors import LabshellError

# Terminals whose type may be used; anything else is a plain one.
TERMINALS = ("xterm", "screen", "tmux", "rxvt", "linux", "alacritty", "kitty", "foot", "putty",
             *(f"vt{digit}" for digit in range(10)))  # fmt: skip
LETTERS_OF_VARIANTS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-")
LONGEST_VARIANT = 20
WORDS_OF_OURS = frozenset({"action", "check", "state"})  # values that are texts of ours and not names of theirs
POWERS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def plain(value: object) -> str:
    """`value` as one line of harmless text: control characters, what turns text around or is not seen, by number."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def is_known_terminal(kind: str) -> bool:
    """Whether a type of terminal may be used as it is."""
    variant = next((kind[len(name) :] for name in TERMINALS if kind.startswith(name)), None)
    return variant is not None and len(variant) <= LONGEST_VARIANT and set(variant) <= LETTERS_OF_VARIANTS


def sentence(message: Mapping[str, Any]) -> str:
    """A sentence of the daemon's in the user's language, with its values filled in, which may be words of ours."""
    given = (message.get("values") or {}).items()
    values = {name: _(value) if name in WORDS_OF_OURS else value for name, value in given}
    return plain(_(message["sentence"]).format_map(values))


def error(found: LabshellError) -> str:
    """The sentence of an error, in the user's language."""
    return sentence({"sentence": found.sentence, "values": found.values})


def width(text: str) -> int:
    """The columns a text takes on a terminal: Chinese characters take two each."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else not unicodedata.combining(character)
        for character in text
    )


def padded(text: str, columns: int) -> str:
    """`text` with blanks after it, so that the next column begins where it should."""
    return text + " " * (columns - width(text))


def size(count: int | None) -> str:
    """Bytes to read: 1.5 GiB."""
    if count is None or count < 0:  # -1 is how the engine says that it does not know
        return "?"
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = 0 if unit == 0 or amount >= 10 else 1
    return f"{amount:.{digits}f} {UNITS[unit]}"


def bytes_of(text: str) -> int | None:
    """A size in the engine's notation, in bytes; None if it is none."""
    number = text.rstrip("BKMGTikb")
    unit = text[len(number) :]
    if not (number.isascii() and number.isdigit()) or unit not in POWERS:
        return None
    return int(number) * POWERS[unit]


def limit(text: str) -> str:
    """A limit to read: "64GiB" is 64 GiB. What is no size stays as it is."""
    count = bytes_of(text)
    return plain(text) if count is None else size(count)


def moment(text: object) -> str:
    """A moment to read, in the host's time zone: 2026-11-27 18:58 CET. `text` is RFC 3339."""
    found = _parsed(text)
    return plain(text) if found is None else f"{found.astimezone():%Y-%m-%d %H:%M %Z}"


def rfc3339(text: object) -> str | None:
    """A moment for programs: 2026-11-27T17:58:52Z. `text` is RFC 3339 in any of its forms; None is none."""
    import datetime

    found = None if text is None else _parsed(text)
    return None if found is None else f"{found.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _parsed(text: object) -> datetime.datetime | None:
    """RFC 3339 with or without fractions of a second; UTC without a zone."""
    import datetime

    seconds, zone = str(text)[:19], str(text)[19:].lstrip(".0123456789")
    try:
        return datetime.datetime.fromisoformat(seconds + ("+00:00" if zone in ("", "Z") else zone))
    except ValueError:
        return None


def duration(seconds: int | None) -> str:
    """A time span to read: 3 days, 2 h 5 min."""
    if seconds is None or seconds < 0:
        return "?"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 2:
        return _("{days} days").format(days=days)
    if hours:
        return _("{hours} h {minutes} min").format(hours=hours, minutes=minutes % 60)
    if minutes:
        return _("{minutes} min").format(minutes=minutes)
    return _("{seconds} s").format(seconds=seconds)


def gateway(user: str, host: str, port: int = 22) -> str:
    """What to type after ssh for the gateway: "alice@gpu1", or "-p 2222 alice@gpu1"."""
    return plain(f"{user}@{host}" if port == 22 else f"-p {port} {user}@{host}")
