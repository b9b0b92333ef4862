"""Which ports of the host a proxy device takes, as the engine writes them."""

from __future__ import annotations

import pytest

from labshell.engine import proxies


@pytest.mark.parametrize(
    ("listen", "ports"),
    [
        ("tcp:0.0.0.0:80", [80]),
        ("tcp:[::]:80", [80]),
        ("tcp:198.51.100.1:80,443-445", [80, 443, 444, 445]),
        ("udp:0.0.0.0:80", []),
        ("unix:/run/some:80", []),
        ("tcp:0.0.0.0:", []),
        ("", []),
    ],
)
def test_ranges_and_lists_are_every_port_in_them(listen: str, ports: list[int]) -> None:
    assert proxies._ports({"type": "proxy", "listen": listen}, "listen") == ports
    assert proxies._ports({"type": "disk", "listen": listen}, "listen") == []
