"""What reads hostile bytes, for some seconds each; tests/fuzz.py goes on for as long as somebody likes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz.py"
SECONDS = 4


@pytest.mark.parametrize("target", ["request", "public_key", "command_line", "port_file", "name", "terminal"])
def test_no_input_ends_in_anything_but_an_answer_or_a_refusal(target: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ), target, f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs
    assert int(runs[1]) > 100
