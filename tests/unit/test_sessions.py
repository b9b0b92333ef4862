"""Which sessions a key has opened: on the host, and in what a container says of its own SSH server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labshell.engine import inside_sessions
from labshell.engine.inside_sessions import Session
from labshell.shell import answers, card, logins

KEY = {"kind": "ssh-ed25519", "fingerprint": "SHA256:" + "x" * 43, "comment": "alice@laptop", "only_inside": False}
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIPl2hm1Cmfl4bYDmgSGoTKXs+yoRKjBo5t0Hqyq4mM3d"


def test_what_a_container_says_of_its_sessions_is_read_and_nothing_more() -> None:
    text = (
        "session 812 Accepted publickey for alice from 198.18.0.2 port 51000 ssh2: ED25519 SHA256:abc/+\n"
        "session 900 Accepted password for alice from 198.18.0.3 port 51001 ssh2\n"
        "session 901 \nsession x\nsession 902; reboot\nnonsense\n"
    )
    assert inside_sessions.parse_sessions(text) == [
        Session(812, "198.18.0.2", "SHA256:abc/+"), Session(900, "198.18.0.3", None), Session(901, "", None),
    ]  # fmt: skip


def test_the_key_of_a_login_is_what_sshd_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "auth"
    file.write_text(f"publickey ssh-ed25519 {BLOB}\n")
    public = tmp_path / "key.pub"
    public.write_text(f"ssh-ed25519 {BLOB}\n")
    monkeypatch.setenv("SSH_USER_AUTH", str(file))
    shown = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout
    assert logins.own_fingerprint() == shown.split()[1]
    for text in ("", "password", "publickey", "publickey ssh-rsa", "publickey ssh-rsa !"):
        file.write_text(text)
        assert logins.own_fingerprint() is None
    monkeypatch.delenv("SSH_USER_AUTH")
    assert logins.own_fingerprint() is None


def test_the_connections_of_a_user_are_found_and_ended(tmp_path: Path) -> None:
    """A process that is called as sshd's are, with a login shell below it."""
    (tmp_path / "auth").write_text(f"publickey ssh-ed25519 {BLOB}\n")
    below = f"{sys.executable} -c 'import time; time.sleep(60)'"
    script = (
        f"echo sshd > /proc/$$/comm; SSH_USER_AUTH={tmp_path}/auth SSH_CONNECTION='192.0.2.7 1 x 22' {below} & wait"
    )
    process = subprocess.Popen(["bash", "-c", script], start_new_session=True)
    try:
        found = []
        for _ in range(100):
            found = [login for login in logins.of_user(os.getuid()) if login.pid == process.pid and login.address]
            if found:
                break
            time.sleep(0.1)
        assert [(login.address, bool(login.fingerprint)) for login in found] == [("192.0.2.7", True)]
        logins.end(found)
        assert process.wait(10) != 0
        logins.end(found)  # it has gone
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_key_says_what_is_to_be_known_before_it_goes() -> None:
    style = card.Style(colour=False)
    opened = [
        {"where": "host", "address": "192.0.2.7", "is_known": True},
        {"where": "container", "address": None, "is_known": False},
    ]
    found = {"fingerprint": KEY["fingerprint"], "key": KEY, "is_last": True}
    text = answers.key_to_remove(found, opened, style, is_own=True)
    for words in (
        "alice@laptop",
        "last key",
        "key of this login",
        "on the host",
        "192.0.2.7",
        "perhaps of another key",
    ):
        assert words in text
    gone = {"fingerprint": KEY["fingerprint"], "is_last": False}  # without key, as the daemon leaves out what is none
    assert KEY["fingerprint"] in answers.key_to_remove(gone, opened, style, is_own=False)
    assert "last" not in answers.key_to_remove({**found, "is_last": False}, [], style, is_own=False)


def test_keys_marks_this_login_and_what_only_the_container_has() -> None:
    text = answers.keys_text([{**KEY, "this_login": True}, {**KEY, "only_inside": True}], card.Style(colour=False))
    assert text.count("this login") == text.count("only in the container") == 1
    assert "until an administrator adds one" in answers.keys_text([{**KEY, "only_inside": True}], card.Style(colour=False))
