"""Public-key files of the usual programs, made with ssh-keygen itself: what is taken, and what the rest is called."""

from __future__ import annotations

import subprocess
import textwrap
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from refusals import refused

from labshell import texts
from labshell.admin import csv_import
from labshell.admin.class_list import Row
from labshell.admin.options import key_text
from labshell.errors import UsageError
from labshell.model import key_files
from labshell.shell import verbs

KINDS = {"ed25519": (), "rsa": ("-b", "3072"), "ecdsa": ("-b", "521")}
COMMENT = "alice@laptop of the lab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair of each kind."""
    folder = tmp_path_factory.mktemp("keys")
    for kind, bits in KINDS.items():
        keygen("-q", "-t", kind, *bits, "-N", "", "-C", COMMENT, "-f", str(folder / kind))
    return folder


def keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True).stdout


def exported(folder: Path, kind: str, form: str) -> str:
    return keygen("-e", "-m", form, "-f", str(folder / f"{kind}.pub"))


def line(folder: Path, kind: str = "ed25519") -> str:
    return (folder / f"{kind}.pub").read_text().strip()


def taken(data: bytes) -> str:
    return str(key_files.read(texts.decoded(data)))


CODINGS = {
    "UTF-8": lambda text: text.encode(),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 with a mark": lambda text: text.encode("utf-16"),
    "UTF-16, the other order": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "CR and LF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR alone": lambda text: text.replace("\n", "\r").encode(),
    "a mark, CR and LF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "blank lines around": lambda text: f"\n\n  {text}\n\n".encode(),
    "quoted by a mail program": lambda text: textwrap.indent(text, "> ").encode(),
    "quoted twice": lambda text: textwrap.indent(text, ">> ", lambda _: True).encode(),
}


FORMS = [(kind, form) for kind in KINDS for form in ("OpenSSH", "RFC4716", "PKCS8", "PEM") if kind != "ed25519" or "P" not in form[:1]]
PASTED = textwrap.dedent("""\
    ---- BEGIN SSH2 PUBLIC KEY ----
    Subject: alice
    Comment: "alice \\
    at home"
    x-tool: some \\
    thing
    {blob}
    ---- END SSH2 PUBLIC KEY ----
    """)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_whole_key_is_taken_in_every_form_and_encoding(folder: Path, kind: str, form: str, coding: str) -> None:
    text = line(folder, kind) + "\n" if form == "OpenSSH" else exported(folder, kind, form)
    found = taken(CODINGS[coding](text))
    assert found.split()[:2] == line(folder, kind).split()[:2]
    if form == "OpenSSH":
        assert found == line(folder, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [Encoding.PEM])
def test_a_pem_file_of_another_program_is_taken(folder: Path, kind: str, form: Encoding) -> None:
    public = load_ssh_public_key(line(folder, kind).encode())
    text = public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
    assert taken(text) == " ".join(line(folder, kind).split()[:2])
    assert taken(b" ".join(text.split(b"\n"))) == " ".join(line(folder, kind).split()[:2])


@pytest.mark.parametrize("between", ["\n", " "])
def test_headers_of_an_ssh2_file_are_read_whatever_a_shell_did_to_its_lines(folder: Path, between: str) -> None:
    kind, blob, comment = line(folder).split(" ", 2)
    assert taken(PASTED.format(blob=blob).encode()) == f"{kind} {blob} alice at home"
    text = f'---- BEGIN SSH2 PUBLIC KEY ----\nComment: "{comment}"\n{blob[:64]}\n{blob[64:]}\n---- END SSH2 PUBLIC KEY ----'
    assert taken(text.replace("\n", between).encode()) == line(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [20, 60, 64, 72, 76, 78])
def test_a_line_that_a_mail_program_broke_is_joined(folder: Path, kind: str, width: int) -> None:
    whole = line(folder, kind)
    broken = "\n".join(textwrap.wrap(whole, width))
    assert "\n" in broken
    assert taken(broken.encode()) == whole


def test_the_key_without_its_type_in_quotes_and_with_blanks_of_a_web_page_is_taken(folder: Path) -> None:
    whole = line(folder)
    kind, blob, _ = whole.split(" ", 2)
    assert taken(blob.encode()) == f"{kind} {blob}"
    for text in (f'"{whole}"', f"'{whole}'", f"\u201c{whole}\u201d", whole.replace(" ", "\u00a0"), f"\u200b{whole}\u200b"):
        assert taken(text.encode()) == whole


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-8", "utf-16"])
def test_a_comment_in_chinese_is_decoded(folder: Path, encoding: str) -> None:
    text = f"{' '.join(line(folder).split()[:2])} alice@电脑"
    assert taken(text.encode(encoding)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
def test_a_private_key_is_named_with_the_way_to_the_public_one_and_never_repeated(
    folder: Path, tmp_path: Path, kind: str, form: str
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes((folder / kind).read_bytes())
    copy.chmod(0o600)
    keygen("-q", "-p", "-m", form, "-P", "", "-N", "", "-f", str(copy))
    for data in (copy.read_bytes(), copy.read_text().encode("utf-16"), " ".join(copy.read_text().split()).encode()):
        with pytest.raises(UsageError, match=r"private key.*ssh-keygen -y") as caught:
            taken(data)
        assert not set(copy.read_text().split("\n")[1:-2]) & set(str(caught.value).split())


PPK = "PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: x\r\nPublic-Lines: 1\r\nAAAA\r\nPrivate-Lines: 1\r\nAAAA\r\n"
ECDSA_OTHER = ec.generate_private_key(ec.SECP256K1()).public_key()
DSA = dsa.generate_private_key(2048).public_key()
SHORT = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - what has to be refused
X25519 = x25519.X25519PrivateKey.generate().public_key()


def pem(key: ec.EllipticCurvePublicKey | dsa.DSAPublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "error_id"),
    [
        ("", "key-empty"), ("\ufeff", "key-empty"), ("# nothing\n", "key-empty"), ("hello\n", "key-unknown"),
        (PPK, "key-is-putty-private"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "key-is-certificate"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "key-is-pgp"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "key-end-missing"), ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key-pem-unusable"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\n---- END SSH2 PUBLIC KEY ----\n", "key-lines-damaged"),
        (pem(DSA), "key-is-dsa"), ("ssh-dss AAAAB3NzaC1kc3MAAACB x", "key-is-dsa"), (pem(SHORT), "key-rsa-too-short"), (pem(ECDSA_OTHER), "key-pem-unusable"), (pem(X25519), "key-pem-unusable"),
        ("2048 65537 " + "1234567890" * 60 + " alice", "key-ssh1"), ("256 SHA256:" + "A" * 43 + " alice (ED25519)", "key-is-fingerprint"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_named(text: str, error_id: str) -> None:
    with refused(UsageError, error_id):
        key_files.read(text)


@pytest.mark.parametrize("form", ["OpenSSH", "RFC4716", "mixed"])
def test_several_keys_are_refused_with_the_way_to_give_them(folder: Path, form: str) -> None:
    one = {kind: line(folder, kind) if form == "OpenSSH" else exported(folder, kind, "RFC4716") for kind in KINDS}
    if form == "mixed":
        one["rsa"] = exported(folder, "rsa", "PKCS8")
    with pytest.raises(UsageError, match=r"There are 3 keys.*--key"):
        taken("\n".join(one.values()).encode())


def test_a_certificate_of_openssh_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(line(folder))
    keygen("-q", "-s", str(folder / "rsa"), "-I", "alice", "-n", "alice", str(tmp_path / "key.pub"))
    with refused(UsageError, "key-is-certificate"):
        taken((tmp_path / "key-cert.pub").read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_cut_off_is_refused_in_every_form(folder: Path, kind: str) -> None:
    for text in (" ".join(line(folder, kind).split()[:2]), exported(folder, kind, "RFC4716")):
        for length in range(1, len(text) - 1, 7):
            with pytest.raises(UsageError):
                key_files.read(text[:length])


def test_options_in_front_of_a_key_are_kept_when_its_line_is_broken(folder: Path) -> None:
    whole = f'from="192.0.2.0/24" {line(folder)}'
    key = key_files.read("\n".join(textwrap.wrap(whole, 60)))
    assert (key.options_text, str(key)) == ('from="192.0.2.0/24"', line(folder))


def test_a_begin_line_is_an_argument_and_no_option(folder: Path) -> None:
    for form in ("RFC4716", "PKCS8"):
        text = exported(folder, "rsa", form)
        assert key_files.read(verbs.parse(f"keys add {text}").arguments[0]).kind == "ssh-rsa"


@pytest.mark.parametrize("cell", ["in the table", "file"])
def test_a_row_of_a_class_list_takes_what_a_key_file_may_be(folder: Path, tmp_path: Path, cell: str) -> None:
    text = exported(folder, "ed25519", "RFC4716")
    (tmp_path / "bob.pub").write_bytes(text.encode("utf-16"))
    row = Row(2, {"name": "bob", "key": "bob.pub" if cell == "file" else text})
    key = csv_import._parsed_key(row, tmp_path)
    assert row.faults == []
    assert str(key).split()[:2] == line(folder).split()[:2]


def test_a_key_file_for_an_option_may_be_in_any_encoding(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gbk.pub").write_bytes(f"{' '.join(line(folder).split()[:2])} 电脑".encode("gbk"))
    assert key_files.read(key_text(str(tmp_path / "gbk.pub"))).comment == "电脑"


@pytest.mark.parametrize(
    "part",
    ["-----BEGIN PUBLIC KEY-----", "---- BEGIN SSH2 PUBLIC KEY ----", "\n", " ", ">", "A ", "a,", "AAAA ", "-----BEGIN A", "ssh-ed25519 "],
)  # fmt: skip
def test_no_text_takes_long_to_refuse(part: str) -> None:
    began = time.process_time()
    with pytest.raises(UsageError):
        key_files.read(part * (60_000 // len(part)) + "\nx")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", ["ssh-ed25519 " + "AAAA " * 12000, "ssh-ed25519 AAAA " + "a " * 8000, "AAAA " * 12000])
def test_a_text_of_many_parts_takes_no_time(text: str) -> None:
    began = time.process_time()
    with pytest.raises(UsageError):
        key_files.read(text)
    assert time.process_time() - began < 1
