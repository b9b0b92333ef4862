"""What was probably meant by a line that asks for nothing we know: one sentence that is true and helps. Pure.

Loaded only when something was typed wrong.
"""

from __future__ import annotations

from labshell.errors import UsageError
from labshell.language import _
from labshell.shown import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

LONGEST_WORD = 24
SHORTEST = 2  # one letter may be the beginning of anything
PUNCTUATION = "\"'`.,;:!?\u3002\uff0c\uff1b\uff1a\uff01\u201c\u201d\u2018\u2019"
# What an action is called elsewhere.
SAME_ACTIONS = (
    frozenset({"remove", "delete", "rm", "del", "drop"}),
    frozenset({"create", "add", "new", "make", "save", "open"}),
    frozenset({"restore", "revert", "rollback", "load"}),
)
ON_THE_LAPTOP = frozenset((
    "ssh", "scp", "sftp", "rsync", "ssh-keygen", "ssh-add", "ssh-agent", "ssh-keyscan", "mosh", "putty", "plink",
    "pscp", "psftp", "sshfs", "code",
))  # fmt: skip
KEY_BEGINNINGS = ("ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "-----begin", "----")
# Programs whose names are close to a verb's, and what else people type into anything that has a prompt.
FOR_A_SHELL = frozenset((
    "alias", "apt", "apt-get", "awk", "bash", "bg", "cat", "cd", "chmod", "chown", "conda", "cp", "crontab",
    "curl", "cut", "date", "df", "diff", "docker", "du", "echo", "env", "export", "fg", "file", "find", "free",
    "gcc", "git", "grep", "groups", "gzip", "head", "history", "host", "hostname", "htop", "id", "ifconfig",
    "ip", "jobs", "journalctl", "jupyter", "kill", "killall", "last", "less", "ln", "locate", "ls", "lscpu",
    "lsof", "make", "man", "mkdir", "mount", "mv", "nano", "nohup", "nvcc", "nvidia-smi", "nvtop", "passwd",
    "perl", "pip", "pip3", "pkill", "ps", "pwd", "python", "python3", "reboot", "rm", "rmdir", "screen", "sed",
    "service", "sh", "shutdown", "sleep", "sort", "source", "squeue", "srun", "stat", "su", "sudo", "systemctl",
    "tail", "tar", "tee", "test", "time", "tmux", "top", "touch", "tr", "uname", "uniq", "unzip", "uptime",
    "vi", "vim", "w", "watch", "wc", "wget", "whereis", "which", "who", "xargs", "yes", "zip", "zsh",
))  # fmt: skip


def nearest(word: str, candidates: Collection[str]) -> str:
    """The candidate that `word` is a slip of: other capitals, one or two letters wrong, its beginning; or nothing."""
    word = _normal(word)
    if word in candidates:
        return word
    if not SHORTEST <= len(word) <= LONGEST_WORD:
        return ""
    begun = [candidate for candidate in candidates if candidate.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    distances = {candidate: distance(word, candidate) for candidate in candidates}
    best = min(distances, key=lambda candidate: distances[candidate], default="")
    return best if best and distances[best] <= (1 if len(word) < 5 else 2) else ""


def _normal(word: str) -> str:
    """Small letters, those of full width as usual ones, without the punctuation of a sentence around them."""
    word = word[: 2 * LONGEST_WORD]
    if not word.isascii():
        import unicodedata

        word = unicodedata.normalize("NFKC", word)
    return word.strip(PUNCTUATION).lower()


def distance(one: str, other: str) -> int:
    """How many letters are wrong, missing or too many; two neighbours in the wrong order count once."""
    before, last = list[int](), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != wanted))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted:
                cost = min(cost, before[column - 2] + 1)
            now.append(cost)
        before, last = last, now
    return last[-1]


def unknown(word: str, commands: Collection[str]) -> UsageError:
    """The error for a first word that is none of `commands`."""
    near = "" if word in FOR_A_SHELL else nearest(word, commands)
    if near:
        return UsageError(
            "command-misspelled",
            "Unknown command: {word}. Did you mean `{command}`?",
            word=_short(word),
            command=near,
        )
    return UsageError("command-unknown", "Unknown command: {word} (see `help`).", word=_short(word))


def wrong_word(verb: str, word: str, actions: Iterable[str], options: Iterable[str]) -> UsageError:
    """The error for a word that a verb does not take."""
    near = near_action(word, [action for action in actions if action])
    if word.startswith("-"):
        name = nearest(word.lstrip("-").partition("=")[0], list(options))
        near = f"--{name}" if name else ""
    if near:
        return UsageError(
            "argument-misspelled",
            "{verb} does not take {word}. Did you mean `{command}`?",
            verb=verb,
            word=_short(word),
            command=f"{verb} {near}",
        )
    return UsageError(
        "argument-unknown", "{verb} does not take {word}; see: help {verb}", verb=verb, word=_short(word)
    )


def near_action(word: str, actions: Collection[str]) -> str:
    """The action that was meant by a word, which may be what another program calls it."""
    for same in SAME_ACTIONS:
        meant = [action for action in actions if action in same]
        if word.lower() in same and meant:
            return meant[0]
    return nearest(word, actions)


def in_menu(line: str, choices: int, commands: Collection[str]) -> UsageError:
    """The error for a line that the menu does not know: for each kind of line, where it belongs."""
    word = line.split(None, 1)[0]
    if word.lower().startswith(KEY_BEGINNINGS):
        return UsageError(
            "key-typed-as-command", "This looks like a key. Type `keys add`, then paste the public key."
        )
    if word == "ssh-copy-id":
        return UsageError(
            "ssh-copy-id-in-menu",
            "ssh-copy-id is for your own computer's terminal. Here, type `keys add` and paste the key.",
        )
    if word in ON_THE_LAPTOP:
        return UsageError(
            "command-for-laptop",
            "{word} is for your own computer's terminal; `enter` opens a shell in the container.",
            word=word,
        )
    if word in ("clear", "cls", "reset"):
        return UsageError("command-for-terminal", "Ctrl-L clears the window.")
    if word[0].isdigit() or word[1:].isdigit():
        return UsageError(
            "choice-unknown",
            "There is no choice {word}: type a number from 1 to {last}, or a command.",
            word=_short(word),
            last=choices,
        )
    if word not in FOR_A_SHELL and nearest(word, commands):
        return unknown(word, commands)
    if word in FOR_A_SHELL:
        return UsageError(
            "command-for-container", "{word} is for a shell; `enter` opens one in the container.", word=word
        )
    return UsageError(
        "command-unknown-in-menu",
        "Unknown command: {word} (see `help`). `enter` opens a shell in the container.",
        word=_short(word),
    )


def after_ssh(command: str, gateway: str, way_in: str, commands: Collection[str]) -> UsageError:
    """The error for a command after `ssh HOST` that is none of ours: where such a thing works, to the letter."""
    if "authorized_keys" in command and "ssh" in command:  # what ssh-copy-id sends
        return UsageError(
            "ssh-copy-id-after-ssh",
            "ssh-copy-id cannot add a key here; run: ssh {gateway} keys add < FILE.pub",
            gateway=gateway,
        )
    word = command.split()[0]
    if word.rpartition("/")[2] == "mosh-server":
        return UsageError(
            "mosh-not-supported",
            "mosh does not work here: it needs UDP, and only TCP is forwarded; log in with: {way_in}",
            way_in=way_in or f"ssh -t {gateway} enter",
        )
    near = "" if word in FOR_A_SHELL else nearest(word, commands)
    if near:
        return UsageError(
            "command-misspelled-after-ssh",
            "Unknown command: {word}. Did you mean: ssh {gateway} {command}",
            word=_short(word),
            gateway=gateway,
            command=near,
        )
    ways = [f"ssh {gateway} run {_short(word)}", *([f"{way_in} {_short(word)}"] if way_in else [])]
    return UsageError(
        "command-unknown-after-ssh",
        "Unknown command: {word} (see `help`); programs run in your container: {ways}",
        word=_short(word),
        ways=_(" or ").join(ways),
    )


def _short(word: str) -> str:
    return plain(word)[:40]
