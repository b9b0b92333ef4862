"""labshelld on a host whose crowd has accounts, port files and rules, but no containers: those are said to be stopped.

The rest is the daemon as it is installed.
"""

from __future__ import annotations

import pwd
from typing import Any

from labshell.daemon import main as daemon
from labshell.engine.containers import Containers
from labshell.engine.records import Usage
from labshell.model.container import Container

PREFIX = "crowd-"
all_there_are, all_with_usage = Containers.all, Containers.all_with_usage


def container(name: str, uid: int, number: int) -> Container:
    address = f"10.84.{number // 250}.{number % 250 + 1}"
    return Container(name, "Stopped", name, uid, address, is_prepared=True)


CROWD = [
    container(entry.pw_name, entry.pw_uid, number)
    for number, entry in enumerate(entry for entry in pwd.getpwall() if entry.pw_name.startswith(PREFIX))
]


def with_crowd(self: Containers) -> list[Container]:
    return all_there_are(self) + CROWD


def with_crowd_and_usage(self: Containers) -> list[tuple[Container, Usage]]:
    return all_with_usage(self) + [(item, Usage(None, None, None, None)) for item in CROWD]


patched: Any = Containers
patched.all = with_crowd
patched.all_with_usage = with_crowd_and_usage
daemon.main()
