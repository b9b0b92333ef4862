"""What a trial finds on the host: which servers apt's sources name, and what is reached."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from labshell.host import probe
from labshell.host.probe import Target
from labshell.model import keys


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deb http://deb.debian.org/debian bookworm main", [Target("deb.debian.org", 80)]),
        ("URIs: https://mirror.example.edu:8443/debian/\nSuites: trixie", [Target("mirror.example.edu", 8443)]),
        ("deb [signed-by=/usr/k.gpg] https://user:word@mirror/x y main", [Target("mirror", 443)]),
        ("deb http://a/ x main\ndeb http://a/ y main\ndeb http://b/ x main", [Target("a", 80), Target("b", 80)]),
        ("# deb http://a/ x main\n", []),
        ("deb file:/srv/mirror x main\ndeb cdrom:[Debian]/ x main", []),
        ("deb http://$(reboot)/ x main\ndeb http://a;b/ x main", []),
        ("", []),
    ],
)
def test_the_servers_of_apt_sources_are_read(text: str, found: list[Target]) -> None:
    assert probe.package_servers([text]) == found


def test_a_connection_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("127.0.0.1", server.getsockname()[1])
        assert probe.is_reached(target)
    assert not probe.is_reached(target)
    assert not probe.is_reached(Target("a" * 70 + ".", 80))


def test_a_guest_has_a_key_that_is_gone_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "try"
    folder.mkdir()
    (folder / "left").touch()
    with probe.guest("guest", folder) as guest:
        assert keys.parse(guest.key).kind == "ssh-ed25519"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "key").stat().st_mode & 0o777 == 0o600
        assert "BEGIN OPENSSH PRIVATE KEY" in (folder / "key").read_text()
        assert not (folder / "left").exists()
    assert not folder.exists()


def test_services_that_only_the_host_itself_reaches_are_not_listed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] not in [target.port for target in probe.services_of_host()]
