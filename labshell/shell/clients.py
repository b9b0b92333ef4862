"""What the programs on users' laptops send at the host's port 22, and what becomes of it. Pure.

Commands of file programs run in the container, as they were sent.
"""

from __future__ import annotations

from itertools import pairwise

from labshell.language import _

SFTP_SERVERS = ("sftp-server", "internal-sftp")
# What file programs start at the other end, and the Debian package that it comes in.
PACKAGES = {
    "scp": "openssh-client", "rsync": "rsync", "git-upload-pack": "git", "git-receive-pack": "git",
    "git-upload-archive": "git", "git-lfs-authenticate": "git-lfs", "git-lfs-transfer": "git-lfs", "unison": "unison",
    "borg": "borgbackup", "rdiff-backup": "rdiff-backup", "svnserve": "subversion", "hg": "mercurial",
}  # fmt: skip
NOT_FOUND = 127  # a shell's exit status for a command that there is not


def command_inside(command: str) -> str | None:
    """What to run in the container for a command that a file program's client sent; None for anything else."""
    words = command.split()
    if _base(words[0]) in SFTP_SERVERS:
        return "exec /usr/lib/openssh/sftp-server"
    if words[0] == "sudo" and _base(words[-1]) in SFTP_SERVERS:
        return "exec sudo /usr/lib/openssh/sftp-server"
    return command if program_of(command) else None


def program_of(command: str) -> str:
    """The program that a file program's client wants at this end; empty if it is none of those.

    rsync's may have words in front of it, from --rsync-path: "sudo rsync --server", "mkdir -p d && rsync --server".
    """
    words = command.split()
    programs = [_base(word) for word, following in pairwise(words) if following == "--server"]
    first = _base(words[0])
    return "rsync" if "rsync" in programs else first if first in PACKAGES else ""


def not_installed(command: str) -> str:
    """The sentence for a file program's command whose program is not in the container."""
    program = program_of(command)
    text = _("{program} is not installed in your container; install it there: sudo apt install {package}")
    return text.format(program=program, package=PACKAGES.get(program, program))


def _base(path: str) -> str:
    return path.rpartition("/")[2]
