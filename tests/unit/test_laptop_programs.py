"""What programs on laptops send at port 22."""

from __future__ import annotations

import pytest
from refusals import refused

from labshell.errors import UsageError
from labshell.shell import clients, mistyped, verbs

WAY_IN = "ssh -p 20010 alice@gpu1"


@pytest.mark.parametrize(
    ("command", "inside"),
    [("internal-sftp", "exec /usr/lib/openssh/sftp-server"), ("/usr/lib/openssh/sftp-server -f X", "exec /usr/lib/openssh/sftp-server"),
     ("scp -t /tmp", "scp -t /tmp"), ("rsync --server . /", "rsync --server . /"), ("git-upload-pack 'x y'", "git-upload-pack 'x y'"),
     ("/bin/scp -t x", "/bin/scp -t x"), ("sudo rsync --server -l . d", "sudo rsync --server -l . d"),
     ("mkdir -p d && rsync --server . d", "mkdir -p d && rsync --server . d"),
     ("/usr/bin/rsync --server . d", "/usr/bin/rsync --server . d"), ("borg serve", "borg serve"),
     ("sudo /usr/libexec/sftp-server", "exec sudo /usr/lib/openssh/sftp-server"),
     ("ls", None), ("scpx", None), ("bash -c 'scp -t x'", None), ("sudo ls", None), ("x --server", None)],
)  # fmt: skip
def test_what_file_programs_send_runs_inside_and_nothing_else_does(command: str, inside: str | None) -> None:
    assert clients.command_inside(command) == inside


def test_mosh_is_told_that_only_tcp_is_forwarded() -> None:
    text = str(mistyped.after_ssh("mosh-server new -c 256 -s", "alice@gpu1", WAY_IN, verbs.COMMANDS))
    assert text.endswith(f"only TCP is forwarded; log in with: {WAY_IN}")
    with refused(UsageError, "udp-not-forwarded"):
        verbs.parse("ports add 60001 --udp")


@pytest.mark.parametrize(
    ("command", "package"), [("git-upload-pack 'p'", "git"), ("mkdir d && rsync --server", "rsync")]
)
def test_a_program_that_is_missing_inside_is_named_with_its_package(command: str, package: str) -> None:
    assert clients.not_installed(command).endswith(f"sudo apt install {package}")
