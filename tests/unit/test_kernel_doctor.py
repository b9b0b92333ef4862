"""The kernel's tables that all containers share: what is too small or nearly used up is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from labshell.doctor import kernel as kernel_doctor
from labshell.host import machine


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/sys of one's own."""
    monkeypatch.setattr(machine, "PROC", tmp_path)
    return tmp_path / "sys"


def put(settings: Path, values: dict[str, str]) -> None:
    for name, value in values.items():
        path = settings / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def found() -> list[str]:
    return [finding.id for finding in kernel_doctor.findings() if finding.id != "ip-forward"]


@pytest.mark.parametrize(
    ("limit", "used", "reserve", "ids"),
    [
        ("65536", "12", "1024", []),
        ("1048576", "60000", "1024", []),
        ("4096", "12", "1024", ["terminals-few"]),
        ("4096", "2500", "1024", ["terminals-few", "terminals-used-up"]),  # containers get 3072 of these
        ("65536", "51609", "1024", []),
        ("65536", "51610", "1024", ["terminals-used-up"]),
        ("65536", "65536", "0", ["terminals-used-up"]),
        ("65536", "odd", "odd", []),
    ],
)
def test_too_few_terminals_are_found(settings: Path, limit: str, used: str, reserve: str, ids: list[str]) -> None:
    put(settings, {"kernel/pty/max": limit, "kernel/pty/nr": used, "kernel/pty/reserve": reserve})
    assert found() == ids


@pytest.mark.parametrize(
    ("limit", "used", "ids"),
    [
        ("262144", "300", []),
        ("262144", "209715", []),
        ("262144", "209716", ["connections-used-up"]),
        ("262144", "262144", ["connections-used-up"]),
        ("0", "9", []),
        ("odd", "9", []),
    ],
)
def test_a_table_of_connections_that_is_nearly_full_is_found(
    settings: Path, limit: str, used: str, ids: list[str]
) -> None:
    put(settings, {"net/netfilter/nf_conntrack_max": limit, "net/netfilter/nf_conntrack_count": used})
    assert found() == ids


def test_a_kernel_that_tells_nothing_is_not_guessed_about(settings: Path) -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("used", "ids"),
    [("209715", []), ("209716", ["connections-used-up"]), ("262144", ["connections-used-up"]), ("x", [])],
)
def test_a_connection_table_that_is_nearly_full_is_found(settings: Path, used: str, ids: list[str]) -> None:
    put(settings, {"net/netfilter/nf_conntrack_max": "262144", "net/netfilter/nf_conntrack_count": used})
    assert found() == ids


def test_the_container_with_most_connections_is_named(settings: Path) -> None:
    put(settings, {"net/netfilter/nf_conntrack_max": "10", "net/netfilter/nf_conntrack_count": "9"})
    (settings.parent / "net").mkdir()
    line = "ipv4 2 tcp 6 431999 ESTABLISHED src={} dst=192.0.2.1 sport=1 dport=2 src=192.0.2.1 dst=10.83.0.1\n"
    lines = [line.format(address) for address in ("10.83.0.3", "10.83.0.2", "10.83.0.3")]
    (settings.parent / "net/nf_conntrack").write_text("".join(lines))
    names = {"10.83.0.2": "alice", "10.83.0.3": "bob"}
    [finding] = [one for one in kernel_doctor.findings(names) if one.id == "connections-used-up"]
    assert "2 are of the container bob" in finding.finding
