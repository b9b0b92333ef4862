"""The same with ten thousand users registered as with ten."""

from __future__ import annotations

from typing import Any

SCALE: tuple[dict[str, Any], ...] = ()
