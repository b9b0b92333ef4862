"""Running one of the host's own programs: an argument list, a known environment, a time limit, no shell."""

from __future__ import annotations

import subprocess

from labshell.errors import LabshellError

SECONDS = 30
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end with `text` on its standard input; LabshellError if that cannot be done."""
    try:
        return subprocess.run(  # fixed programs, names checked by model.names
            argv, input=text, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabshellError(
            "host-program-not-run", "{program} could not be run on the host: {why}.", program=argv[0], why=error
        ) from error


def reason_of(done: subprocess.CompletedProcess[str]) -> str:
    """Why it failed, in one line of its own words."""
    return (" ".join(done.stderr.split())[:300] or f"status {done.returncode}").rstrip(".")
