"""Public keys: what is one, and why the rest is not."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from labshell import keys
from labshell.errors import UsageError


def public(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


ED25519 = ed25519.Ed25519PrivateKey.generate()
GOOD = {
    "ed25519": public(ED25519),
    "ecdsa": public(ec.generate_private_key(ec.SECP384R1())),
    "rsa": public(rsa.generate_private_key(65537, 2048)),
}
KEY = GOOD["ed25519"]
PRIVATE = ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
SHORT = public(rsa.generate_private_key(65537, 1024))  # noqa: S505 - what has to be refused
FORGED = "ssh-rsa " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x01x").decode()


@pytest.mark.parametrize("kind", GOOD)
def test_a_public_key_is_taken_with_its_comment(kind: str) -> None:
    key = keys.parse(f"# mine\n\n  {GOOD[kind]} alice@laptop of the lab \n")
    assert str(key) == f"{GOOD[kind]} alice@laptop of the lab"


@pytest.mark.parametrize(
    ("text", "reason"),
    [(PRIVATE, "private key"), ("", "empty"), ("\n# only a comment\n", "empty"), (f"{KEY}\n{GOOD['rsa']}\n", "more than one"),
     (f'command="id" {KEY}', "options"), (f"cert-authority {KEY}", "options"), ("hello world", "not a public key"), (KEY[:50], "damaged"),
     ("ssh-ed25519", "cut off"), ("ssh-ed25519 !!!", "damaged"), ("ssh-ed25519 ", "cut off"), (FORGED, "different kinds"),
     (SHORT, "too short"), (f"{KEY} a\x1b[31m", "cannot be shown"),
     ("ssh-dss AAAA", "not a public key"), ("ssh-ed25519 " + "A" * 20000, "too long")],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        keys.parse(text)
    assert "PRIVATE" not in str(caught.value)


def test_the_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(KEY)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    )
    assert keys.parse(KEY).fingerprint in shown.stdout


@pytest.mark.parametrize("restricted", [True, False])
def test_a_file_of_keys_is_read_as_it_was_written(*, restricted: bool) -> None:
    several = [keys.parse(f"{text} {kind}") for kind, text in GOOD.items()]
    text = keys.authorized_keys(several, restricted=restricted)
    assert keys.parse_authorized_keys(text) == several
    assert text.startswith("restrict,pty ssh-") == restricted
