"""A container's own SSH server: which keys its file has, which sessions are open, and their end.

Asked by programs inside. Root in there may say what they like: it is their own container that they mislead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from labshell.engine.errors import CHANGE, translate_errors
from labshell.engine.inside import Inside
from labshell.errors import UsageError
from labshell.model.keys import PublicKey, parse

SECONDS = 20
# The user's file, if it is one.
READ_KEYS = r"""
file=$(getent passwd "$1" | cut -d: -f6)/.ssh/authorized_keys
if [ -f "$file" ]; then head -c 65536 "$file"; fi
"""
# A line for each connection that has logged in: the process of sshd's that is root's, and what sshd wrote about it.
LIST_SESSIONS = r"""
for process in /proc/[0-9]*; do
    case $(readlink "$process/exe") in */sshd | */sshd-session) ;; *) continue ;; esac
    pid=${process#/proc/}
    case $(tr '\0' ' ' < "$process/cmdline") in
        *' [priv]'*)
            children=$(cat "$process/task/$pid/children")
            [ -n "$children" ] || continue
            if cat $(printf '/proc/%s/cmdline ' $children) | grep -qF '[net]'; then continue; fi ;;
        sshd*': root@'*) ;;
        *) continue ;;
    esac
    accepted=$(journalctl --quiet --boot --output=cat "_PID=$pid" | grep '^Accepted ' | tail -n 1)
    printf 'session %s %s\n' "$pid" "$accepted"
done 2>/dev/null
true
"""
END_SESSIONS = r"""
kill -TERM "$@"
for turn in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.2
    kill -0 "$@" || exit 0
done 2>/dev/null
kill -KILL "$@"
true
"""
SESSION = re.compile(r"^session ([0-9]+) (?:Accepted .* from (\S+) port .*?(SHA256:\S+)?)?$", re.MULTILINE)


class Session(NamedTuple):
    """A session of the container's SSH server; without a fingerprint where its journal does not have one."""

    pid: int
    address: str
    fingerprint: str | None


def keys_in_file(inside: Inside, name: str) -> list[PublicKey]:
    """The keys in the user's authorized_keys inside a running container; what is no key of ours is left out."""
    status, text = inside.ask(name, ["/bin/sh", "-c", READ_KEYS, "labshell", name], timeout_seconds=SECONDS)
    found = []
    for line in text.splitlines() if status == 0 else ():
        try:
            found.append(parse(line))
        except UsageError:
            continue
    return found


def sessions(inside: Inside, name: str) -> list[Session]:
    """The sessions that are open in a running container."""
    _, text = inside.ask(name, ["/bin/sh", "-c", LIST_SESSIONS], timeout_seconds=SECONDS)
    return parse_sessions(text)


def parse_sessions(text: str) -> list[Session]:
    return [Session(int(pid), address or "", key or None) for pid, address, key in SESSION.findall(text)]


def end(inside: Inside, name: str, ended: list[Session]) -> None:
    """End sessions; the programs that they left in the background go on."""
    if ended:
        with translate_errors(name, CHANGE):
            pids = [str(session.pid) for session in ended]
            inside.run(name, ["/bin/sh", "-c", END_SESSIONS, "labshell", *pids], SECONDS)
