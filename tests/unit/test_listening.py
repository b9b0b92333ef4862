"""Whom a port of a container answers, by the kernel's tables."""

from __future__ import annotations

import os
import socket

import pytest

from labshell.host import container_listeners
from labshell.model.listening import in_tables

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(local: str, state: str = "0A") -> str:
    return f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1\n"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], "nowhere"),
        ([line("00000000:22B8")], "everywhere"),
        ([line("0100007F:22B8")], "localhost"),
        ([line("0100007F:22B8"), line("0202530A:22B8")], "everywhere"),
        ([line("00000000000000000000000000000000:22B8")], "everywhere"),
        ([line("00000000000000000000000001000000:22B8")], "localhost"),
        ([line("0000000000000000FFFF00000100007F:22B8")], "localhost"),
        ([line("00000000:22B9")], "nowhere"),
        ([line("00000000:22B8", state="01")], "nowhere"),
        (["", "half a line"], "nowhere"),
    ],
)
def test_only_what_listens_on_the_port_counts_and_how_far_it_is_reached(lines: list[str], found: str) -> None:
    assert in_tables(HEAD + "".join(lines)).get(8888, "nowhere") == found


@pytest.mark.parametrize(("address", "found"), [("127.0.0.1", "localhost"), ("0.0.0.0", "everywhere")])  # noqa: S104
def test_the_kernels_own_tables_are_read(address: str, found: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        assert (container_listeners.of(os.getpid()) or {})[port] == found
    assert port not in (container_listeners.of(os.getpid()) or {})
    assert container_listeners.of(1 << 30) is None
