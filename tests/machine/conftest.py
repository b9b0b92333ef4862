"""The machine of these tests, and how long each step of it took."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab import Lab, running_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with running_lab(os.environ.get("LABSHELL_MACHINE", "bookworm")) as running:
        yield running
