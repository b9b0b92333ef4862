"""What the tests of attacks and faults share: what a refused person may hear, and what has to be true afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence

from testhost import Completed, Host

REFUSED = {1, 2, 69, 75}
FULL = os.environ.get("LABSHELL_HOSTILE") == "full"  # every step and every count; otherwise a share of them


def one_sentence(done: Completed) -> str:
    """The one sentence that a refused person reads, on standard error; nothing else is printed."""
    assert done.returncode in REFUSED, done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done
    assert "Traceback" not in lines[0]
    assert all(character.isprintable() for character in lines[0]), done
    return lines[0]


def served_or_told(done: Completed) -> str:
    """Nothing if the login did what it was asked to, or the one sentence."""
    return "" if done.returncode == 0 else one_sentence(done)


def works(host: Host, user: str, port: int) -> None:
    """`user` is in their own container, through the port they always had."""
    host.client.ssh(user, "start", check=True, timeout=120)
    assert host.ssh_port(user) == port
    assert host.client.ssh(user, "hostname", port=port, check=True).stdout == f"{user}\n"


def as_researcher(user: str, argv: Sequence[str]) -> list[str]:
    """A command on the gateway with no more rights than the login shell of `user`."""
    return ["setpriv", "--reuid", user, "--regid", "labshell", "--clear-groups", "--no-new-privs", *argv]
