"""Which networks are closed to containers, and what says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from labshell import guard, machine
from labshell.guard import Networks

NFS = (
    "/dev/sda1 / ext4 rw,relatime 0 0\n"
    "nas:/data /data nfs4 rw,relatime,vers=4.2,proto=tcp,sec=sys,clientaddr=10.5.0.2,local_lock=none,addr=10.5.0.9 0 0\n"
    "nas:/home /home nfs rw,vers=3,mountaddr=10.5.0.8,mountvers=3,addr=10.5.0.8 0 0\n"
    "//win/share /win cifs rw,vers=3.1.1,addr=10.6.0.3,file_mode=0755 0 0\n"
    "nas6:/x /x nfs4 rw,addr=fd00::9 0 0\n"
    "nas:/again /again nfs4 rw,addr=10.5.0.9 0 0\n"
)
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
WAY_OUT = "{interface}\t00000000\t010012C6\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of one's own."""
    for folder in ("self", "net"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(machine, "PROC", tmp_path)
    return tmp_path


def test_a_mounted_file_servers_own_address_is_found_and_no_other(proc: Path) -> None:
    (proc / "self/mounts").write_text(NFS)
    assert machine.file_servers() == ["10.5.0.8", "10.5.0.9", "10.6.0.3"]


def test_a_host_without_a_way_out_has_no_side_networks(proc: Path) -> None:
    (proc / "net/route").write_text(ROUTES)
    assert machine.side_networks() == []


def test_the_best_way_out_comes_first_and_none_of_them_is_a_side_network(proc: Path) -> None:
    ways = [WAY_OUT.format(interface=name, metric=metric) for name, metric in (("wlan0", 600), ("lo", 100))]
    (proc / "net/route").write_text(ROUTES + "".join(ways))
    assert machine.outside_interface() == "lo"
    assert "127.0.0.0/8" not in machine.side_networks()


def test_networks_that_overlap_become_one_and_what_may_be_reached_stands_between_never_and_found() -> None:
    networks = Networks(["169.254.0.0/16"], ["10.5.0.9/32"], ["10.5.0.0/24", "10.5.0.9", "10.5.0.0/25"])
    lines = [line.strip() for line in networks.rules('iifname "br"').splitlines()]
    assert lines == [
        'iifname "br" ip daddr { 169.254.0.0/16 } drop',
        'iifname "br" ip daddr { 10.5.0.9/32 } accept',
        'iifname "br" ip daddr { 10.5.0.0/24 } drop',
    ]


def test_no_closed_networks_are_no_rule() -> None:
    assert Networks([]).rules('iifname "br"') == ""
    assert "forward" not in guard.rules_on_labs_network(Networks([]), closed=True)
