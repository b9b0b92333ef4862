"""`keys`: add one that is given, sent or pasted; remove one, with what came with it and the end of its sessions.

Loaded for this verb only.
"""

from __future__ import annotations

import os
import select

from labshell import texts
from labshell.errors import UsageError
from labshell.language import _
from labshell.shell import answers, logins
from labshell.shell.terminal import read_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labshell.shell.answers import OpenSession
    from labshell.shell.session import Session
    from labshell.shell.terminal import Terminal
    from labshell.shell.verbs import Request
    from labshell.wire.gateway import FoundKey, Key

    class OwnKey(Key):
        """A key, with whether this very login came with it."""

        this_login: bool


LONGEST_KEY = 32768
PASTE_SECONDS = 0.2  # between two lines of what is pasted


def keys(session: Session, request: Request) -> None:
    """List the public keys, after adding or removing one."""
    if request.action == "add":
        text = _read_key(session.terminal, request.arguments[0] if request.arguments else "")
        found: list[Key] = session.answer("AddKey", {"key": text}, "keys")
    elif request.action == "remove":
        found = _remove(session, request)
    else:
        found = session.answer("Keys", {}, "keys")
    own = logins.own_fingerprint()
    keys: list[OwnKey] = [{**key, "this_login": key["fingerprint"] == own} for key in found]
    if not session.print_json(request, keys):
        session.terminal.say(answers.keys_text(keys, session.terminal.style))


def _read_key(terminal: Terminal, given: str) -> str:
    """A key that was given as an argument, comes on standard input or is pasted, in one line or several."""
    interactive = terminal.is_interactive
    if interactive and not given:
        terminal.say(_("Paste the public key, then press Enter: "))
    data = os.fsencode(f"{given}\n") if given else read_input(LONGEST_KEY)
    while data and len(data) < LONGEST_KEY and (_goes_on(data) if interactive else not given):
        if not (chunk := read_input(LONGEST_KEY)):
            break
        data += chunk
    return texts.decoded(data)


def _goes_on(pasted: bytes) -> bool:
    """Whether more lines of a key that is pasted follow: they are there already, or its END line is still missing."""
    if select.select([0], [], [], PASTE_SECONDS)[0]:
        return True
    return b"BEGIN " in pasted and b"END " not in pasted and not pasted.endswith(b"\n\n")


def _remove(session: Session, request: Request) -> list[Key]:
    """The keys that are left."""
    found: FoundKey = session.answer("FindKey", {"which": request.arguments[0]}, "found")
    fingerprint = found["fingerprint"]
    here = [login for login in logins.of_user(os.getuid()) if login.fingerprint in (fingerprint, None)]
    listed: list[OpenSession] = [
        {"where": "host", "address": login.address, "is_known": bool(login.fingerprint)} for login in here
    ]
    listed += [{"where": "container", **opened} for opened in found["sessions"]]
    is_own = fingerprint == logins.own_fingerprint()
    if not found.get("key") and not listed:
        raise UsageError("key-missing", "There is no key {which}; `keys` lists them.", which=request.arguments[0])
    if not session.terminal.is_quiet:
        session.terminal.say(answers.key_to_remove(found, listed, session.terminal.style, is_own=is_own))
    if found.get("key") and "yes" not in request.options:
        session.agree(request, _("Remove this key?"))
    keys: list[Key]
    try:
        if found.get("key"):
            keys = session.answer("RemoveKey", {"which": fingerprint, "even_the_last": True}, "keys")
        else:
            keys = session.answer("Keys", {}, "keys")
    finally:  # what is wrong with the container keeps no session open on the host
        if listed:
            _end_sessions(session, request, fingerprint, here)
    return keys


def _end_sessions(session: Session, request: Request, fingerprint: str, here: list[logins.Login]) -> None:
    """End the sessions if that is asked for or agreed to; else say how."""
    wanted, is_quiet = "end-sessions" in request.options, session.terminal.is_quiet
    if not wanted and session.terminal.is_interactive and not is_quiet and "yes" not in request.options:
        wanted = session.terminal.confirm(_("End these sessions, too?"))
    if not wanted:
        if is_quiet:
            return
        text = _("Sessions of this key are still open; end them with: keys remove {key} --end-sessions --yes")
        session.terminal.complain(text.format(key=fingerprint))
        return
    logins.end(here)
    session.answer("EndKeySessions", {"fingerprint": fingerprint}, "ended")
