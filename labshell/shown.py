"""How text from elsewhere is shown: never with a character that could drive the reader's terminal. Pure."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Control characters, DEL and C1, surrogates, line and paragraph separators, everything that turns text around.
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
# Terminals whose type may be used; anything else is a plain one.
TERMINALS = re.compile(
    r"(xterm|screen|tmux|rxvt|linux|vt[0-9]+|alacritty|kitty|foot|putty)[a-z0-9+-]{0,20}", re.ASCII
)
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def plain(value: object) -> str:
    """`value` as one line of harmless text."""
    return UNSAFE.sub(lambda found: f"\\x{ord(found.group()):02x}", str(value))


def sentence(message: Mapping[str, Any]) -> str:
    """A sentence of the daemon's with its values filled in."""
    return plain(message["sentence"].format_map(message.get("values") or {}))


def size(count: int | None) -> str:
    """Bytes for people: 1.5 GiB."""
    if count is None:
        return "?"
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = 0 if unit == 0 or amount >= 10 else 1
    return f"{amount:.{digits}f} {UNITS[unit]}"


def duration(seconds: int | None) -> str:
    """A time span for people: 3 days, 2 h 5 min."""
    if seconds is None:
        return "?"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 2:
        return f"{days} days"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
