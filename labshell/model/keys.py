"""OpenSSH public keys: what is one, what is not, and why. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import SSHPublicKeyTypes, load_ssh_public_key

from labshell import shown
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
RSA_BITS = 2048
PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----|PuTTY-User-Key-File|Private-Lines:")
LONGEST_KEY = 16384
MOST_BYTES = 65536  # of all the keys of one person
RESTRICTIONS = "restrict,pty"
# One option in front of a key (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and those that only make it weaker than it is.
OPTION = re.compile(r'([a-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|(?=\s)|$)', re.IGNORECASE)
KEPT_OPTIONS = {
    "from": re.compile(r"[A-Za-z0-9.:*?!/,_-]{1,1000}", re.ASCII),
    "expiry-time": re.compile(r"[0-9]{8}([0-9]{4}([0-9]{2})?)?Z?", re.ASCII),
}
DROPPED_OPTIONS = frozenset({"restrict", "pty"})  # on the host every key has them
USUAL_APPLICATION = b"ssh:"  # of a key on a security key: the only one that cryptography takes
SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_SHOWN = 100  # characters of a line that is no key


@dataclass(frozen=True)
class PublicKey:
    """One public key as authorized_keys holds it, with those of its options that can be kept: from, expiry-time."""

    kind: str
    blob: str
    comment: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.blob} {self.comment}".rstrip()

    @property
    def options_text(self) -> str:
        return ",".join(f'{name}="{value}"' for name, value in self.options)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class UnreadLine(PublicKey):
    """A line of the host's own file that is no key to us: `blob` is the line, with what is no UTF-8 as surrogates.

    It stays as it is until it is removed, and no container gets it.
    """

    def __str__(self) -> str:
        return self.comment

    @property
    def fingerprint(self) -> str:
        """What names it where a key has its fingerprint."""
        return "line:" + hashlib.sha256(self.blob.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def parse(text: str) -> PublicKey:
    """The one public key in `text`; UsageError with the reason if it is anything else."""
    if PRIVATE.search(text):
        raise UsageError(
            "key-is-private",
            "This is a private key: keep it secret, and give the public one, in the file that ends in .pub; "
            "this shows it: ssh-keygen -y -f FILE",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError("key-empty", "There is no public key in this: it is empty.")
    if len(lines) > 1:
        raise UsageError("key-several", "There is more than one key in this; give them one at a time.")
    return _parse_line(lines[0])


def _parse_line(line: str, *, is_new: bool = True) -> PublicKey:
    """The key in a line. One that is new must also be safe and have a comment that can be shown."""
    if len(line) > LONGEST_KEY:
        raise UsageError("key-too-long", "This is too long for a public key.")
    options: tuple[tuple[str, str], ...] = ()
    if line.split(None, 1)[0] not in KEY_TYPES:
        options, line = _split_options(line)
    words = line.split(None, 2)
    if len(words) < 2:
        raise UsageError("key-body-missing", "This public key is cut off: nothing follows its type.")
    kind, blob = words[0], words[1]
    comment = words[2] if len(words) > 2 else ""
    key = _loaded(kind, blob)
    if key is None and kind_of(blob):
        raise UsageError("key-kinds-differ", "This public key is damaged: its two halves are of different kinds.")
    if key is None:
        raise UsageError("key-damaged", "This public key is damaged or cut off; copy it again, in one line.")
    if is_new and isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
        raise UsageError(
            "key-rsa-too-short", "This RSA key is too short to be safe; make a new one with: ssh-keygen -t ed25519"
        )
    if is_new and not comment.isprintable():
        raise UsageError("key-comment-invalid", "The comment of this key has characters that cannot be shown.")
    return PublicKey(kind, blob, shown.plain(comment), options)


def _split_options(line: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The options in front of a key, and the key; a UsageError if this is no key, or one with other options."""
    position, found = 0, []
    while option := OPTION.match(line, position):
        position = option.end()
        found.append((option.group(1).lower(), option.group(2) or ""))
        if position == len(line) or line[position].isspace():
            break
    rest = line[position:].strip()
    if not rest or rest.split(None, 1)[0] not in KEY_TYPES:
        if "ssh-dss" in line.split():
            raise UsageError(
                "key-is-dsa",
                "This is a DSA key, which is not safe any more; make a new one with: ssh-keygen -t ed25519",
            )
        if "-cert-v01@openssh.com" in line:
            raise UsageError("key-is-certificate", "This is a certificate; give the public key that it was made for.")
        raise UsageError(
            "key-unknown",
            "This is not a public key that OpenSSH knows: it should begin with ssh-ed25519 or the like.",
        )
    kept = [(name, value) for name, value in found if name not in DROPPED_OPTIONS]
    for name, value in kept:
        if name not in KEPT_OPTIONS or not KEPT_OPTIONS[name].fullmatch(value):
            raise UsageError(
                "key-option-not-kept",
                "The option {option} of this key cannot be kept: only from and expiry-time can.",
                option=name,
            )
    return tuple(kept), rest


def is_whole(kind: str, blob: str) -> bool:
    """Whether the base64 text is a key of that type from its first byte to its last."""
    return _loaded(kind, blob) is not None


def kind_of(blob: str) -> str | None:
    """The type of the key that the base64 text is; None if it is none."""
    return next((kind for kind in KEY_TYPES if is_whole(kind, blob)), None)


def _loaded(kind: str, blob: str) -> SSHPublicKeyTypes | None:
    """The key itself; None if it is not one of that type, or damaged."""
    try:
        body = base64.b64decode(blob, validate=True)
        if base64.b64encode(body).decode() != blob:
            return None  # bits are left over at its end, which OpenSSH refuses and Python passes over
        if kind.startswith("sk-"):
            blob = base64.b64encode(_with_usual_application(body)).decode()
        return load_ssh_public_key(f"{kind} {blob}".encode())
    except Exception:  # noqa: BLE001 - of garbage, whatever its parser comes upon: IndexError, NotImplementedError
        return None


def _with_usual_application(body: bytes) -> bytes:
    """A key on a security key with the application that cryptography takes: OpenSSH takes any."""
    position = 0
    while position < len(body):
        start, length = position, int.from_bytes(body[position : position + 4], "big")
        position += 4 + length
    application = body[start + 4 :]
    if position != len(body) or b"\0" in application[:-1]:
        raise ValueError("not what OpenSSH takes for an application")
    return body[:start] + len(USUAL_APPLICATION).to_bytes(4, "big") + USUAL_APPLICATION


def check_amount(listed: Iterable[PublicKey]) -> None:
    """Refuse more keys for one user than everything takes that reads them, as an argument of a program for one."""
    if len(authorized_keys(map(line_on_host, listed))) > MOST_BYTES:
        raise UsageError(
            "keys-too-many", "Too many keys: the limit is {size} KiB of keys per user.", size=MOST_BYTES >> 10
        )


def line_on_host(key: PublicKey) -> str:
    """A key's line in the host's authorized_keys, where it may do one thing only."""
    if isinstance(key, UnreadLine):
        return key.blob
    return f"{','.join(filter(None, (RESTRICTIONS, key.options_text)))} {key}"


def lines_inside(listed: Iterable[PublicKey], gateway_address: str) -> list[str]:
    """The lines inside the container; what is no key to us is left out."""
    return [line_inside(key, gateway_address) for key in readable(listed)]


def line_inside(key: PublicKey, gateway_address: str) -> str:
    """A key's line inside the container. A connection through `proxy` comes from the gateway's own address."""
    options = [(name, f"{value},{gateway_address}" if name == "from" else value) for name, value in key.options]
    inside = replace(key, options=tuple(options))
    return f"{inside.options_text} {key}".lstrip()


def authorized_keys(lines: Iterable[str]) -> str:
    """The text of an authorized_keys file."""
    return "".join(f"{line}\n" for line in lines)


def parse_authorized_keys(text: str) -> list[PublicKey]:
    """The keys in the host's file, and the lines in it that are none. What is no UTF-8 in it are surrogates."""
    lines = (line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#"))
    return [_stored(line) for line in lines]


def _stored(line: str) -> PublicKey:
    try:
        return _parse_line(SURROGATE.sub("\N{REPLACEMENT CHARACTER}", line.strip()), is_new=False)
    except UsageError:
        return UnreadLine("unreadable", line, shown.plain(line.strip())[:LONGEST_SHOWN])


def readable(listed: Iterable[PublicKey]) -> list[PublicKey]:
    """The keys without the lines that are none."""
    return [key for key in listed if not isinstance(key, UnreadLine)]


def choose_key(listed: Sequence[PublicKey], which: str) -> PublicKey:
    """The key with that number in the list, counted from 1, or with that fingerprint or comment."""
    for number, key in enumerate(listed, start=1):
        if which in (str(number), key.fingerprint, key.fingerprint.removeprefix("SHA256:")):
            return key
    named = [key for key in listed if which and key.comment.split() == which.split()]
    if len(named) > 1:
        raise UsageError(
            "key-ambiguous",
            "There are {count} keys {which}; give a number or a fingerprint (`keys` lists them).",
            count=len(named),
            which=shown.plain(which)[:60],
        )
    if named:
        return named[0]
    raise UsageError("key-missing", "There is no key {which}; `keys` lists them.", which=shown.plain(which)[:60])
