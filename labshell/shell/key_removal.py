"""`keys remove`: which key, what came with it, a question, and the end of its sessions. Loaded for this verb only."""

from __future__ import annotations

import os

from labshell.errors import UsageError
from labshell.language import _
from labshell.shell import card, logins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from labshell.shell.session import Session
    from labshell.shell.verbs import Request


def remove(session: Session, request: Request) -> list[dict[str, Any]]:
    """The keys that are left."""
    found = session.answer("FindKey", {"which": request.arguments[0]}, "found")
    fingerprint = found["fingerprint"]
    here = [login for login in logins.of_user(os.getuid()) if login.fingerprint in (fingerprint, None)]
    listed = [{"where": "host", "address": login.address, "is_known": bool(login.fingerprint)} for login in here]
    listed += [{"where": "container", **opened} for opened in found["sessions"]]
    is_own = fingerprint == logins.own_fingerprint()
    if not found.get("key") and not listed:
        raise UsageError("There is no key {which}; keys lists them.", which=request.arguments[0])
    if not session.terminal.is_quiet:
        session.terminal.say(card.key_to_remove(found, listed, session.terminal.style, is_own=is_own))
    if found.get("key") and "yes" not in request.options:
        session.agree(request, _("Remove this key?"))
    keys: list[dict[str, Any]]
    try:
        if found.get("key"):
            keys = session.answer("RemoveKey", {"which": fingerprint, "even_the_last": True}, "keys")
        else:
            keys = session.answer("Keys", {}, "keys")
    finally:  # what is wrong with the container keeps no session open on the host
        if listed:
            _end(session, request, fingerprint, here)
    return keys


def _end(session: Session, request: Request, fingerprint: str, here: list[logins.Login]) -> None:
    """End the sessions if that is asked for or agreed to; else say how."""
    wanted = "end-sessions" in request.options
    if not wanted and session.terminal.is_interactive and "yes" not in request.options:
        wanted = session.confirm(_("End these sessions, too?"))
    if not wanted:
        text = _("Sessions of this key are still open; end them with: keys remove {key} --end-sessions --yes")
        session.terminal.complain(text.format(key=fingerprint))
        return
    logins.end(here)
    session.answer("EndKeySessions", {"fingerprint": fingerprint}, "ended")
