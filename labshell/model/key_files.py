"""Public-key files of any usual program: the one key in a text, or the reason why there is none. Pure.

Read are lines of OpenSSH, also when a mail program has broken or quoted them, SSH2 files (RFC 4716), PEM files
(PKCS #8 and PKCS #1) and the key alone without its type. The line of OpenSSH is judged by `keys`.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from labshell.errors import UsageError
from labshell.model import keys
from labshell.model.keys import PublicKey

PRIVATE = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----|SSH PRIVATE KEY FILE FORMAT"
)
PUTTY = re.compile(r"PuTTY-User-Key-File-|^[ ]*Private-Lines:", re.MULTILINE)
# A body ends before the next BEGIN line: the time for a text of many such lines stays in proportion to its length.
SSH2 = re.compile(r"---- BEGIN SSH2 PUBLIC KEY ----((?:(?!---- BEGIN ).)*?)---- END SSH2 PUBLIC KEY ----", re.DOTALL)
PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----((?:(?!-----BEGIN ).)*?)-----END \1-----", re.DOTALL)
PEM_KEYS = ("PUBLIC KEY", "RSA PUBLIC KEY")
BEGIN = re.compile(r"-{4,5} ?BEGIN ")
# A header of an SSH2 file; its value goes on in the next line after a backslash (RFC 4716, section 3.3).
HEADER = re.compile(r"\s*([A-Za-z0-9@._-]{1,64}):[ \t]*(\"[^\"\n]*\"(?=\s|$)|(?:\\\n|[^\n])*)")
FLAT_HEADER = re.compile(r'\s*([A-Za-z0-9@._-]{1,64}):\s*("[^"]*"|\S+)')
SSH1 = re.compile(r"[0-9]{3,5} [0-9]{1,10} [0-9]{100,}( |$)")
FINGERPRINT = re.compile(r"([0-9]+ )?(SHA256:[A-Za-z0-9+/]{43}|MD5:([0-9a-f]{2}:){15}[0-9a-f]{2})")
QUOTES = ('"', "'", "\u201c\u201d", "\u2018\u2019", "`")
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
MOST_PARTS = 500  # into which a mail program or a terminal breaks a key
DSA_START = "AAAAB3NzaC1kc3M"  # of any DSA key's base64: its type
TYPES = {*keys.KEY_TYPES, "ssh-dss"}
KEY_START = re.compile(rf"(?:^|\s)(?:{'|'.join(map(re.escape, sorted(TYPES)))})(?:\s|$)")


def read(text: str) -> PublicKey:
    """The one public key in `text`; UsageError that names what else it is, and the command that converts it."""
    text = _plain(text)
    _refuse_private(text)
    if BEGIN.search(text):
        return _armoured(text)
    lines = _lines(text)
    if not lines:
        raise UsageError("key-empty", "There is no public key in this: it is empty.")
    starts = [number for number, line in enumerate(lines) if _begins_key(line)]
    if len(starts) > 1:
        raise _several(len(starts))
    whole = " ".join(lines)
    if SSH1.match(whole):
        raise UsageError(
            "key-ssh1",
            "This is a key of SSH version 1, which is not safe; make a new one with: ssh-keygen -t ed25519",
        )
    if FINGERPRINT.match(whole):
        raise UsageError(
            "key-is-fingerprint", "This is the fingerprint of a key: give the public key, the file that ends in .pub."
        )
    return keys.parse(_joined(lines))


def _plain(text: str) -> str:
    """The text with "\\n" between its lines, usual blanks, and without characters that only steer its display."""
    text = "\n".join(text.splitlines())
    return "".join(
        " " if unicodedata.category(character) == "Zs" or character == "\t" else character
        for character in text
        if unicodedata.category(character) != "Cf"
    )


def _refuse_private(text: str) -> None:
    if PUTTY.search(text):
        raise UsageError(
            "key-is-putty-private",
            "This is PuTTY's private key: keep it secret, open it in PuTTYgen, and give the text under "
            '"Public key for pasting".',
        )
    if PRIVATE.search(text):
        raise UsageError(
            "key-is-private",
            "This is a private key: keep it secret, and give the public one, in the file that ends in .pub; "
            "this shows it: ssh-keygen -y -f FILE",
        )


def _lines(text: str) -> list[str]:
    """The lines that count, without a mail's quotation marks and the quotes around all of it."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    while lines and all(line.startswith(">") for line in lines):
        lines = [line[1:].strip() for line in lines if line[1:].strip()]
    lines = [line for line in lines if not line.startswith("#")]
    for pair in QUOTES:
        if lines and lines[0].startswith(pair[0]) and lines[-1].endswith(pair[-1]) and len(" ".join(lines)) > 1:
            lines[0] = lines[0][1:].lstrip()
            lines[-1] = lines[-1][:-1].rstrip()
    return [line for line in lines if line]


def _begins_key(line: str) -> bool:
    """Whether a key begins in this line: with its type, or with options and then the type."""
    first = line.split(None, 1)[0]
    if first in TYPES:
        return True
    return bool(KEY_START.search(line)) and bool(keys.OPTION.match(line))


def _joined(lines: list[str]) -> str:
    """One line of what a mail program or a terminal has broken into several; any other text as it is."""
    line = " ".join(lines)
    found = KEY_START.search(line)
    if found is None:
        words = line.split(None, 1)
        alone = _kind_of(words[0]) if words else None
        if alone is None:
            return line
        line, start, kind = f"{alone} {line}", len(alone), alone
    else:
        start, kind = found.end(), found.group().strip()
    before, words = line[:start].rstrip(), line[start:].split()
    for count in range(1, min(len(words), MOST_PARTS) + 1):
        if not BASE64.fullmatch(words[count - 1]):
            break
        if keys.is_whole(kind, "".join(words[:count])):
            rest = line[start:].strip()
            for word in words[:count]:
                rest = rest[len(word) :].lstrip()
            return f"{before} {''.join(words[:count])} {rest}".rstrip()
    return line


def _kind_of(word: str) -> str | None:
    """The type that a key's base64 names in itself, if `word` is that."""
    return "ssh-dss" if word.startswith(DSA_START) else keys.kind_of(word)


def _armoured(text: str) -> PublicKey:
    """The key between BEGIN and END lines."""
    found = [_ssh2(match[1]) for match in SSH2.finditer(text)]
    for match in PEM.finditer(text):
        if "CERTIFICATE" in match[1]:
            raise UsageError("key-is-certificate", "This is a certificate; give the public key that it was made for.")
        if "PGP" in match[1]:
            raise UsageError("key-is-pgp", "This is a key of PGP, not of SSH; make one with: ssh-keygen -t ed25519")
        if match[1] in PEM_KEYS:
            found.append(_pem(match[2]))
    if len(found) > 1:
        raise _several(len(found))
    if not found:
        raise UsageError("key-end-missing", "This public key is cut off: a BEGIN line has no END line that fits.")
    return keys.parse(found[0])


def _ssh2(body: str) -> str:
    """The line of OpenSSH for the inside of an SSH2 file, whose lines a shell may have joined."""
    if re.search(r"^(> ?)+", body, re.MULTILINE):
        body = re.sub(r"^(> ?)+", "", body, flags=re.MULTILINE)
    body = body.strip()
    header = HEADER if "\n" in body else FLAT_HEADER
    comment = ""
    while match := header.match(body):
        if match[1].lower() == "comment":
            comment = re.sub(r"\\\n", "", match[2]).strip()
            if len(comment) > 1 and comment[0] == comment[-1] == '"':
                comment = comment[1:-1]
        body = body[match.end() :].lstrip()
    blob = "".join(body.split())
    kind = _kind_of(blob)
    if kind is None:
        raise UsageError(
            "key-lines-damaged", "This public key is damaged or cut off; copy it again, all lines of it."
        )
    return f"{kind} {blob} {comment}".rstrip()


def _pem(body: str) -> str:
    """The line of OpenSSH for the inside of a PEM file."""
    try:
        key = load_der_public_key(base64.b64decode("".join(body.replace(">", "").split()), validate=True))
        if isinstance(key, DSAPublicKey):
            raise UsageError(
                "key-is-dsa",
                "This is a DSA key, which is not safe any more; make a new one with: ssh-keygen -t ed25519",
            )
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        raise UsageError(
            "key-pem-unusable",
            "This PEM file holds no key that OpenSSH takes, or it is damaged; this shows the public key of a private "
            "one: ssh-keygen -y -f FILE",
        ) from None


def _several(count: int) -> UsageError:
    return UsageError(
        "key-file-has-several",
        "There are {count} keys in this, and one is taken at a time: put each into a file of its own, and give each "
        "to `keys add`, or all with one --key for each file.",
        count=count,
    )
