"""Public keys: what is one, and why the rest is not."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from refusals import refused

from labshell.errors import UsageError
from labshell.model import keys


def public(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # always the same: it is in names of tests
GOOD = {
    "ed25519": public(ED25519),
    "ecdsa": public(ec.generate_private_key(ec.SECP384R1())),
    "ecdsa 256": public(ec.generate_private_key(ec.SECP256R1())),
    "ecdsa 521": public(ec.generate_private_key(ec.SECP521R1())),
    "rsa": public(rsa.generate_private_key(65537, 2048)),
}
KEY = GOOD["ed25519"]
PRIVATE = ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
SHORT = public(rsa.generate_private_key(65537, 1024))  # noqa: S505 - what has to be refused
PEM = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
FORGED = f"ssh-rsa {KEY.split()[1]}"
POINT = ec.derive_private_key(5, ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize("kind", GOOD)
def test_a_public_key_is_taken_with_its_comment(kind: str) -> None:
    key = keys.parse(f"# mine\n\n  {GOOD[kind]} alice@laptop of the lab \n")
    assert str(key) == f"{GOOD[kind]} alice@laptop of the lab"


@pytest.mark.parametrize(
    ("text", "option"),
    [(f'command="id" {KEY}', "command"),
     (f'pty,command="ls -l /home" {KEY}', "command"),
     (f'from="10.0.0.1\\"" {KEY}', "from"),
     (f'expiry-time="soon" {KEY}', "expiry-time"),
     (f'environment="A=B",from="1.2.3.4" {KEY}', "environment"),
     (f"cert-authority {KEY}", "cert-authority"),
     (f"tunnel=\"1\" {KEY}", "tunnel")],
)  # fmt: skip
def test_an_option_that_is_not_kept_is_refused_by_its_name(text: str, option: str) -> None:
    with refused(UsageError, "key-option-not-kept") as caught:
        keys.parse(text)
    assert caught.value.values == {"option": option}


@pytest.mark.parametrize(
    ("text", "error_id"),
    [(PRIVATE, "key-is-private"), (PEM, "key-is-private"), (f"{KEY}\n{PRIVATE}", "key-is-private"), (f"{KEY} {PRIVATE}", "key-is-private"), ("", "key-empty"), ("\n# only a comment\n", "key-empty"), (f"{KEY}\n{GOOD['rsa']}\n", "key-several"),
     (f'from=x {KEY}', "key-unknown"),
     (f"ssh-ed25519-cert-v01@openssh.com {KEY.split()[1]}", "key-is-certificate"), ("PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n", "key-is-private"), (f"{KEY}\n{KEY}\n", "key-several"), ("hello world", "key-unknown"), (KEY[:50], "key-damaged"),
     ("ssh-ed25519", "key-body-missing"), ("ssh-ed25519 !!!", "key-damaged"), ("ssh-ed25519 ", "key-body-missing"), (FORGED, "key-kinds-differ"),
     (SHORT, "key-rsa-too-short"), (f"{KEY} a\x1b[31m", "key-comment-invalid"),
     ("ssh-dss AAAA", "key-is-dsa"), ("ssh-ed448 AAAA", "key-unknown"), ("ssh-ed25519 " + "A" * 20000, "key-too-long")],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(text: str, error_id: str) -> None:
    with refused(UsageError, error_id) as caught:
        keys.parse(text)
    assert "PRIVATE" not in str(caught.value)


def blob(*parts: bytes) -> str:
    """The second word of a key: strings with their lengths in front (RFC 4253)."""
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


SECURITY_KEYS = {
    "sk-ssh-ed25519@openssh.com": (b"x" * 32,),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", POINT),
}
APPLICATIONS = [
    b"ssh:", b"ssh:me", b"", b"x", b"https://github.com", b"ss", b"SSH:", "实验室".encode(), b"\xff\xfe", b"\n\x1b[31m", b"ends\0", b"a\0b", b"\0\0",
    b"a" * 5000,
]  # fmt: skip


def is_taken_by_openssh(folder: Path, text: str) -> bool:
    (folder / "key.pub").write_text(f"{text}\n")
    return subprocess.run(["ssh-keygen", "-lf", folder / "key.pub"], capture_output=True, check=False).returncode == 0


def is_taken(text: str) -> bool:
    try:
        return str(keys.parse(text)) == text
    except UsageError as error:
        assert error.id == "key-damaged"  # noqa: PT017 - every other error is a fault
        return False


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("kind", SECURITY_KEYS)
def test_a_key_on_a_security_key_is_taken_where_openssh_takes_it(
    tmp_path: Path, kind: str, application: bytes
) -> None:
    text = f"{kind} {blob(kind.encode(), *SECURITY_KEYS[kind], application)} token"
    assert is_taken(text) == is_taken_by_openssh(tmp_path, text) == (b"\0" not in application[:-1])


@pytest.mark.parametrize("kind", SECURITY_KEYS)
def test_a_damaged_key_on_a_security_key_is_refused_as_openssh_refuses_it(tmp_path: Path, kind: str) -> None:
    parts = SECURITY_KEYS[kind]
    body = base64.b64decode(blob(kind.encode(), *parts, b"lab:"))
    damaged = [body[:length] for length in range(len(body))]
    damaged += [body + b"\0", body + body[-8:], body[:-8] + b"\xff\xff\xff\xff" + body[-4:]]
    texts = [f"{kind} {base64.b64encode(one).decode()}" for one in damaged]
    texts += [f"{kind} {blob(kind.encode(), *parts, b'lab:', b'more')}", f"{kind} {blob(*parts, b'lab:')}"]
    assert not any(is_taken(text) for text in texts if len(text.split()) == 2)
    for text in texts[:: len(texts) // 10] + texts[-5:]:
        assert not is_taken_by_openssh(tmp_path, text)


@pytest.mark.parametrize("application", [b"ssh:", b"ssh:xx"])  # ends in two bits and in four that count for nothing
def test_bits_that_count_for_nothing_must_be_zero_as_for_openssh(tmp_path: Path, application: bytes) -> None:
    kind = "sk-ssh-ed25519@openssh.com"
    good = blob(kind.encode(), b"x" * 32, application)
    assert good.endswith("=")
    last = good.rstrip("=")[-1]
    text = f"{kind} {good.rstrip('=')[:-1]}{chr(ord(last) + 1)}{'=' * good.count('=')}"
    assert base64.b64decode(text.split()[1], validate=True) == base64.b64decode(good)
    assert not is_taken(text)
    assert not is_taken_by_openssh(tmp_path, text)


@pytest.mark.parametrize("error", [IndexError, TypeError, OverflowError, NotImplementedError, RuntimeError])
def test_whatever_cryptography_raises_on_garbage_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("index out of bounds on dimension 1")

    monkeypatch.setattr(keys, "load_ssh_public_key", fail)
    assert not is_taken(KEY)


@pytest.mark.parametrize("kind", GOOD)
def test_a_key_that_is_cut_off_anywhere_is_refused(kind: str) -> None:
    name = GOOD[kind].split()[0]
    for length in range(len(GOOD[kind])):
        with pytest.raises(UsageError):
            keys.parse(GOOD[kind][:length])
    with pytest.raises(UsageError, match="damaged"):
        keys.parse(GOOD[kind] + "AAAA")
    with pytest.raises(UsageError, match="damaged"):
        keys.parse(f"{name} {blob(name.encode())}")


@pytest.mark.parametrize("point", [b"\4" + b"x" * 64, POINT[:-1], POINT[:-1] + bytes([POINT[-1] ^ 1]), b"\3" + POINT[1:33], b""])
@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_a_point_that_is_on_no_curve_is_no_key(kind: str, point: bytes) -> None:
    application = [b"ssh:"] if kind.startswith("sk-") else []
    with pytest.raises(UsageError, match="damaged"):
        keys.parse(f"{kind} {blob(kind.encode(), b'nistp256', point, *application)}")


@pytest.mark.parametrize("outer", GOOD)
@pytest.mark.parametrize("inner", GOOD)
def test_a_key_under_the_name_of_another_kind_is_refused(outer: str, inner: str) -> None:
    text = f"{GOOD[outer].split()[0]} {GOOD[inner].split()[1]}"
    if outer == inner:
        keys.parse(text)
    else:
        with refused(UsageError, "key-kinds-differ"):
            keys.parse(text)


@pytest.mark.parametrize("bits", [1024, 2047])
def test_an_rsa_key_is_measured_by_its_modulus(bits: int) -> None:
    modulus = (1 << bits - 1).to_bytes(bits // 8 + 1, "big")
    with refused(UsageError, "key-rsa-too-short"):
        keys.parse("ssh-rsa " + blob(b"ssh-rsa", b"\1\0\1", modulus))
    with refused(UsageError, "key-rsa-too-short"):
        keys.parse("ssh-rsa " + blob(b"ssh-rsa", b"\1\0\1", bytes(300) + modulus))


@pytest.mark.parametrize(
    "character",
    ["\0", "\a", "\b", "\t", "\x1b", "\x7f", "\x80", "\x9b", "\xad", "\u200b", "\u202e", "\u2066", "\ufeff", "\ud800", "\U000e0001"],
)  # fmt: skip
def test_a_character_that_cannot_be_shown_is_refused_in_a_comment(character: str) -> None:
    with refused(UsageError, "key-comment-invalid") as caught:
        keys.parse(f"{KEY} alice{character}laptop")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("newline", ["\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_nothing_that_ends_a_line_gets_into_a_comment(newline: str) -> None:
    with pytest.raises(UsageError):
        keys.parse(f"{KEY} alice{newline}{GOOD['rsa']}")


@pytest.mark.parametrize(
    "comment", ["", "alice@laptop", "Ålice's  laptop, the 日本 one", "# restrict,pty ssh-rsa", 'a\\nb "quoted"']
)
def test_a_comment_that_can_be_shown_is_kept(comment: str) -> None:
    key = keys.parse(f"{KEY} {comment}\r\n")
    assert key.comment == comment
    assert keys.parse_authorized_keys(keys.authorized_keys([keys.line_on_host(key)])) == [key]


@pytest.mark.parametrize("kind", GOOD)
def test_the_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path, kind: str) -> None:
    (tmp_path / "key.pub").write_text(GOOD[kind])
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    )
    assert keys.parse(GOOD[kind]).fingerprint == shown.stdout.split()[1]


def test_the_hosts_file_is_read_as_it_was_written_and_every_key_in_it_is_restricted() -> None:
    several = [keys.parse(f"{text} {kind}") for kind, text in GOOD.items()]
    text = keys.authorized_keys(map(keys.line_on_host, several))
    assert keys.parse_authorized_keys(text) == several
    assert all(line.startswith("restrict,pty ") for line in text.splitlines())
    assert text.count("\n") == len(several)


def test_no_keys_are_an_empty_file_and_comments_in_one_are_passed_over() -> None:
    assert keys.authorized_keys([]) == ""
    assert keys.parse_authorized_keys("") == []
    assert keys.parse_authorized_keys(f"# made by labshell\n\n{KEY}\n") == [keys.parse(KEY)]


def test_options_that_make_a_key_weaker_are_kept_on_both_sides() -> None:
    key = keys.parse(f'restrict,from="192.0.2.0/24,!192.0.2.9",expiry-time="20301231" {KEY} desk')
    assert key.comment == "desk"
    on_host, inside = keys.line_on_host(key), keys.line_inside(key, "10.83.0.1")
    assert on_host == f'restrict,pty,from="192.0.2.0/24,!192.0.2.9",expiry-time="20301231" {KEY} desk'
    assert inside == f'from="192.0.2.0/24,!192.0.2.9,10.83.0.1",expiry-time="20301231" {KEY} desk'
    assert keys.parse_authorized_keys(on_host + "\n") == [key]


def test_a_comment_that_speaks_of_a_private_key_is_a_comment() -> None:
    assert keys.parse(f"{KEY} of my PRIVATE KEY pair").comment == "of my PRIVATE KEY pair"


OPTIONS = f'command="id",from="192.0.2.1" {KEY} by hand'
UNREAD = [
    "rubbish", "ssh-ed25519", KEY[:60], f"{FORGED} forged", "  ssh-dss AAAA", OPTIONS, f"cert-authority {KEY}", "ssh-ed25519 \udcff\udcfe",
    "\x1b[31mred", f"ssh-ed25519-cert-v01@openssh.com {KEY.split()[1]}", "-----BEGIN OPENSSH PRIVATE KEY-----", "x" * 20000, "rubbish\r",
]  # fmt: skip


@pytest.mark.parametrize("line", UNREAD)
def test_a_line_of_the_hosts_file_that_is_no_key_stays_as_it_is_and_hides_no_key(line: str) -> None:
    before = keys.authorized_keys([line, keys.line_on_host(keys.parse(f"{KEY} desk"))])
    unread, key = keys.parse_authorized_keys(before)
    assert isinstance(unread, keys.UnreadLine)
    assert str(key) == f"{KEY} desk"
    assert keys.authorized_keys(map(keys.line_on_host, [unread, key])) == before
    assert str(unread).isprintable()
    assert keys.choose_key([key, unread], "2") == keys.choose_key([key, unread], unread.fingerprint) == unread
    assert keys.lines_inside([unread, key], "10.83.0.1") == [f"{KEY} desk"]
    assert keys.readable([unread, key]) == [key]


@pytest.mark.parametrize(
    ("line", "comment"),
    [(f"{SHORT} old", "old"), (f"{KEY} a\x1b[31m", "a\\x1b[31m"), (f"{KEY} J\udcfcrgen", "J\N{REPLACEMENT CHARACTER}rgen"), (f"\t{KEY}\r", "")],
)  # fmt: skip
def test_a_key_that_is_in_use_is_read_though_no_new_one_like_it_is_taken(line: str, comment: str) -> None:
    [key] = keys.parse_authorized_keys(f"# of alice\n \n{line}\n")
    assert not isinstance(key, keys.UnreadLine)
    assert key.comment == comment
    assert keys.parse_authorized_keys(keys.authorized_keys([keys.line_on_host(key)])) == [key]
