"""OpenSSH public keys: what is one, what is not, and why. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from labshell.errors import UsageError

KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
# How many strings a key is made of, its type included; 3 for the kinds that are not here (RFC 4253, 5656, 8709).
FIELDS = {"ssh-ed25519": 2, "sk-ecdsa-sha2-nistp256@openssh.com": 4}
RSA_BITS = 2048
ED25519_BYTES = 32
PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----|PuTTY-User-Key-File|Private-Lines:")
LONGEST_KEY = 16384
RESTRICTIONS = "restrict,pty"


@dataclass(frozen=True)
class PublicKey:
    """One public key as authorized_keys holds it, without options."""

    kind: str
    blob: str
    comment: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.blob} {self.comment}".rstrip()

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def parse(text: str) -> PublicKey:
    """The one public key in `text`; UsageError with the reason if it is anything else."""
    if PRIVATE.search(text):
        raise UsageError(
            "This is a private key: keep it secret, and give the public one, in the file that ends in .pub."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError("There is no public key in this: it is empty.")
    if len(lines) > 1:
        raise UsageError("There is more than one key in this; give them one at a time.")
    return _parse_line(lines[0])


def _parse_line(line: str) -> PublicKey:
    if len(line) > LONGEST_KEY:
        raise UsageError("This is too long for a public key.")
    words = line.split(None, 2)
    if words[0] not in KEY_TYPES:
        if any(word in KEY_TYPES for word in line.split()):
            raise UsageError("A key with options in front cannot be used; give the key alone.")
        raise UsageError("This is not a public key that OpenSSH knows: it should begin with ssh-ed25519 or the like.")
    if len(words) < 2:
        raise UsageError("This public key is cut off: nothing follows its type.")
    kind, blob = words[0], words[1]
    comment = words[2] if len(words) > 2 else ""
    try:
        fields = _fields(base64.b64decode(blob, validate=True))
    except (ValueError, binascii.Error):
        raise UsageError("This public key is damaged or cut off; copy it again, in one line.") from None
    if fields[0] != kind.encode():
        raise UsageError("This public key is damaged: its two halves are of different kinds.")
    if len(fields) != FIELDS.get(kind, 3) or (kind == "ssh-ed25519" and len(fields[1]) != ED25519_BYTES):
        raise UsageError("This public key is damaged: something is missing from it.")
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < RSA_BITS:
        raise UsageError("This RSA key is too short to be safe; make a new one with: ssh-keygen -t ed25519")
    if not comment.isprintable():
        raise UsageError("The comment of this key has characters that cannot be shown.")
    return PublicKey(kind, blob, comment)


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed strings a key blob is made of (RFC 4253, section 6.6), or ValueError."""
    fields = []
    rest = blob
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length or len(rest) < 4:
            raise ValueError("cut off")
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    if not fields:
        raise ValueError("empty")
    return fields


def authorized_keys(public_keys: list[PublicKey], *, restricted: bool) -> str:
    """The text of an authorized_keys file; `restricted` for the host, where a key may do one thing only."""
    prefix = f"{RESTRICTIONS} " if restricted else ""
    return "".join(f"{prefix}{key}\n" for key in public_keys)


def parse_authorized_keys(text: str) -> list[PublicKey]:
    """The keys in a file that authorized_keys() wrote."""
    lines = [line.removeprefix(RESTRICTIONS).strip() for line in text.splitlines()]
    return [_parse_line(line) for line in lines if line and not line.startswith("#")]
