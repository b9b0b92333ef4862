"""Which networks are closed to containers, and what says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused

from labshell.errors import LabshellError
from labshell.forwarding import guard_rules, kernel_settings, tracking
from labshell.forwarding.guard import Guard
from labshell.forwarding.guard_rules import Networks, Surroundings
from labshell.forwarding.surroundings import Lookout
from labshell.host import machine

MOUNTS = (
    "/dev/sda1 / ext4 rw,relatime 0 0\n"
    "nas:/data /data nfs4 rw,relatime,vers=4.2,proto=tcp,sec=sys,clientaddr=10.5.0.2,local_lock=none,addr=10.5.0.9 0 0\n"
    "nas:/home /home nfs rw,vers=3,mountaddr=10.5.0.8,mountvers=3,addr=10.5.0.8 0 0\n"
    "//win/share /win cifs rw,vers=3.1.1,addr=10.6.0.3,file_mode=0755 0 0\n"
    "10.7.0.1:6789,10.7.0.2:6789:/ /ceph ceph rw,name=lab 0 0\n"
    "10.8.0.1@tcp:/fs /lustre lustre rw 0 0\n"
    "nas6:/x /x nfs4 rw,addr=fd00::9 0 0\n"
    "nas:/again /again nfs4 rw,addr=10.5.0.9 0 0\n"
    "odd /odd fuse.odd rw,addr=10.9.0.1 0 0\n"
    "odd /odd2 nfs rw,addr=300.1.1.1 0 0\n"
)
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
ROUTE = "{0}\t{1}\t010012C6\t0003\t0\t0\t{2}\t{3}\t0\t0\t0\n"
ANY = "00000000"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of one's own."""
    for folder in ("self", "net"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(machine, "PROC", tmp_path)
    return tmp_path


def test_the_file_servers_of_the_host_are_found_and_nothing_else(proc: Path) -> None:
    (proc / "self/mounts").write_text(MOUNTS)
    assert machine.file_servers() == ["10.5.0.8", "10.5.0.9", "10.6.0.3", "10.7.0.1", "10.7.0.2", "10.8.0.1"]


@pytest.mark.parametrize(
    ("routes", "ways"),
    [
        ([], []),
        ([("eth0", "0000000A", 0, "000000FF")], []),
        ([("*", ANY, 0, ANY)], []),
        ([("wlan0", ANY, 600, ANY), ("eth0", ANY, 100, ANY), ("eth1", "0000000A", 0, "000000FF")], ["eth0"]),
        ([("eth0", ANY, 100, ANY), ("eth1", ANY, 100, ANY)], ["eth0", "eth1"]),
        ([("tun0", ANY, 0, "00000080"), ("eth0", ANY, 100, ANY)], ["eth0"]),
    ],
)
def test_the_ways_out_are_the_best_default_routes(
    proc: Path, routes: list[tuple[str, str, int, str]], ways: list[str]
) -> None:
    (proc / "net/route").write_text(ROUTES + "".join(ROUTE.format(*route) for route in routes))
    assert machine.ways_out() == ways
    if ways:
        assert machine.outside_interface() == ways[0]
    else:
        with refused(LabshellError, "default-route-missing"):
            machine.outside_interface()


def ways_out_after_a_start(proc: Path, *interfaces: str) -> list[str]:
    """What is open for a daemon that has just started, on a host with these default routes."""
    (proc / "net/route").write_text(ROUTES + "".join(ROUTE.format(name, ANY, 0, ANY) for name in interfaces))
    (proc / "self/mounts").touch()
    here = Lookout(proc / "ways-out")
    here.look()
    return list(here.around.ways_out)


def test_the_last_way_out_holds_over_a_reboot(proc: Path) -> None:
    assert ways_out_after_a_start(proc) == []
    assert ways_out_after_a_start(proc, "eth0", "eth0.5") == ["eth0", "eth0.5"]
    assert ways_out_after_a_start(proc) == ["eth0", "eth0.5"]
    assert ways_out_after_a_start(proc, "eth1") == ["eth1"]
    assert ways_out_after_a_start(proc) == ["eth1"]


@pytest.mark.parametrize("damage", [b"", b'eth0" drop', b"\xff\x00", None])
def test_a_damaged_note_of_the_last_way_out_names_none(proc: Path, damage: bytes | None) -> None:
    note = proc / "ways-out"
    if damage is None:
        note.mkdir()
    else:
        note.write_bytes(damage)
    assert not any('"' in name or "\0" in name for name in ways_out_after_a_start(proc))
    assert ways_out_after_a_start(proc, "eth0") == ["eth0"]


def closed(networks: Networks, around: Surroundings) -> list[str]:
    """The rules about closed networks, in their order."""
    table = guard_rules.rules("br", networks, around, closed=True)
    inet = table.partition("table bridge labshell {")[0]
    lines = [line.strip() for line in inet.partition("chain forward")[2].splitlines()]
    return [line for line in lines if "daddr" in line or "!=" in line]


def test_what_may_be_reached_stands_between_what_never_may_and_what_is_closed_by_itself() -> None:
    networks = Networks(never=["169.254.0.0/16"], may=["10.5.0.9/32", "10.5.0.0/24"])
    assert closed(networks, Surroundings(["eth0"], ["10.5.0.8", "10.5.0.9"])) == [
        'iifname "br" ip daddr { 169.254.0.0/16 } drop',
        'iifname "br" ip daddr { 10.5.0.0/24 } accept',  # nft refuses networks that overlap
        'iifname "br" ip daddr { 10.5.0.8/31 } drop',
        'iifname "br" oifname != { "br", "eth0" } drop',
    ]


@pytest.mark.parametrize("closed", [True, False])
def test_only_ipv4_and_arp_pass_on_the_engines_bridge_with_and_without_the_guard(*, closed: bool) -> None:
    text = guard_rules.rules("br", Networks(), Surroundings(), closed=closed)
    assert {("bridge", "arriving"), ("bridge", "leaving"), ("inet", "loopback")} <= guard_rules.chains_in(text)
    assert 'iifname "labsh*" ether type != { ip, arp } drop' in text
    assert 'oifname "labsh*" ether type != { ip, arp } drop' in text


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_table_is_deleted_before_it_is_made_in_each_family(*, is_wanted: bool) -> None:
    text = guard_rules.rules("br", Networks(), Surroundings(), closed=is_wanted)
    assert text.startswith(guard_rules.NO_TABLE)
    assert guard_rules.chains_in(guard_rules.NO_TABLE) == set()
    assert {family for family, _ in guard_rules.chains_in(text)} == {"inet", "bridge"}


@pytest.mark.parametrize(("content", "there"), [("1\n", True), ("0\n", False), (None, False)])
def test_whether_br_netfilter_is_there(proc: Path, content: str | None, *, there: bool) -> None:
    if content is not None:
        (proc / "sys/net/bridge").mkdir(parents=True)
        (proc / "sys/net/bridge/bridge-nf-call-ip6tables").write_text(content)
    assert machine.has_bridge_netfilter() == there


def test_the_limits_are_a_table_by_itself_so_that_what_changes_around_does_not_count_from_zero(proc: Path) -> None:
    (proc / "net/route").write_text(ROUTES)
    (proc / "self/mounts").touch()
    here = Guard("br", Networks(), proc / "ways-out", closed=False)
    before = here._wanted()
    (proc / "net/route").write_text(ROUTES + ROUTE.format("eth0", ANY, 0, ANY))
    (proc / "self/mounts").write_text(MOUNTS)
    after = Guard("br", Networks(), proc / "ways-out", closed=True)._wanted()
    assert before[0] != after[0]
    assert before[1:] == after[1:] == [tracking.limits("br")]
    assert guard_rules.tables_in(before[1]) == [("inet", tracking.TABLE)]
    assert guard_rules.tables_in(before[0]) == [("inet", "labshell"), ("bridge", "labshell")]


@pytest.mark.parametrize(("now", "then"), [("120", "10"), ("10", "10"), ("5", "5"), ("odd", "odd")])
def test_a_setting_is_lowered_and_never_raised(proc: Path, now: str, then: str) -> None:
    setting = proc / "sys" / tracking.CLOSED_SETTING
    setting.parent.mkdir(parents=True)
    setting.write_text(now)
    kernel_settings.lower(tracking.CLOSED_SETTING, tracking.CLOSED_SECONDS)
    assert setting.read_text() == then


def test_nothing_known_closes_nothing_by_itself() -> None:
    assert closed(Networks(), Surroundings()) == []
    assert "forward" not in guard_rules.rules_on_labs_network(Networks(may=["10.0.0.0/8"]), closed=True)
