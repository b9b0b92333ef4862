"""A user's public keys: one list for the host and the container, and the sessions that a key has opened.

The host's list counts. A key that its owner has put into the container's file by hand is shown as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from labshell.engine import identity, inside_sessions
from labshell.engine.inside import Inside
from labshell.engine.inside_sessions import Session
from labshell.errors import LabshellError, NoContainer, UsageError
from labshell.model import key_files, keys
from labshell.model.keys import PublicKey, UnreadLine, choose_key
from labshell.operations.lab import Lab
from labshell.operations.lifecycle import Lifecycle
from labshell.operations.steps import Steps
from labshell.wire.gateway import FoundKey, Key

T = TypeVar("T")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class OwnKeys:
    """The keys of one user at a time; the caller decides who may ask."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._lifecycle = Lifecycle(lab)
        self._accounts = lab.accounts
        self._containers = lab.containers

    def listing(self, user: str, uid: int) -> list[Key]:
        """The keys in the order in which they are numbered: those of the host, then the container's own."""
        listed = self._accounts.keys_of(user)
        return [_described(key, only_inside=key not in listed) for key in self._all(user, uid, listed)]

    def find(self, user: str, uid: int, which: str) -> FoundKey:
        """One key, whether it is the last, and the sessions inside that it may have opened.

        A fingerprint that is in no list is of a key that has been removed; its sessions may be open yet.
        """
        listed = self._accounts.keys_of(user)
        every = self._all(user, uid, listed)
        key, fingerprint = None, which
        if not FINGERPRINT.fullmatch(which) or which in {one.fingerprint for one in every}:
            key = choose_key(every, which)
            fingerprint = key.fingerprint
        opened = self._sessions(user, uid)
        return {
            "fingerprint": fingerprint,
            "key": _described(key, only_inside=key not in listed) if key else None,
            "is_last": _is_last(key, listed),
            "sessions": [
                {"address": session.address or None, "is_known": session.fingerprint is not None}
                for session in _of_key(opened, fingerprint)
            ],
        }

    def add(self, user: str, uid: int, text: str) -> Steps[None]:
        """A public key more. The container first: a failure there leaves the host as it was."""
        key = key_files.read(text)
        keys.check_amount([*self._accounts.keys_of(user), key])
        with self._lab.locks.held(user):
            yield from self._lifecycle.ensure_started(self._containers.owned(user, uid))
            identity.change_key(self._containers, user, "add", key)
            self._accounts.set_keys(user, [*self._others(user, key), key])

    def remove(self, user: str, uid: int, which: str, *, even_the_last: bool = False) -> Steps[None]:
        """A public key less. The host first: whatever is wrong with the container, the key opens the host no more."""
        listed = self._accounts.keys_of(user)
        key = choose_key(self._all(user, uid, listed), which)
        if _is_last(key, listed) and not even_the_last:
            raise UsageError(
                "key-is-last", "This is your last key: without it you cannot log in any more. Say --yes to remove it."
            )
        with self._lab.locks.held(user):
            if key in listed:
                self._accounts.set_keys(user, self._others(user, key))
            if isinstance(key, UnreadLine):
                return  # no container has it
            try:
                yield from self._lifecycle.ensure_started(self._containers.owned(user, uid))
                identity.change_key(self._containers, user, "remove", key)
            except NoContainer:
                return
            except LabshellError as error:
                raise type(error).around(
                    error,
                    "The key was removed from the host, but it is still in the container: {reason}",
                    reason=error,
                ) from error

    def end_sessions(self, user: str, uid: int, fingerprint: str) -> int:
        """End the sessions inside that came with a key, or may have: how many there were."""
        ended = _of_key(self._sessions(user, uid), fingerprint)
        inside_sessions.end(self._containers.inside, user, ended)
        return len(ended)

    def _others(self, user: str, key: PublicKey) -> list[PublicKey]:
        return [other for other in self._accounts.keys_of(user) if other.blob != key.blob]

    def _all(self, user: str, uid: int, listed: list[PublicKey]) -> list[PublicKey]:
        """The host's keys, and those that only the container has."""
        blobs = {key.blob for key in listed}
        found = self._ask_inside(user, uid, inside_sessions.keys_in_file)
        return [*listed, *{key.blob: key for key in found if key.blob not in blobs}.values()]

    def _sessions(self, user: str, uid: int) -> list[Session]:
        return self._ask_inside(user, uid, inside_sessions.sessions)

    def _ask_inside(self, user: str, uid: int, ask: Callable[[Inside, str], list[T]]) -> list[T]:
        """What a running container answers; nothing from one that is broken, which must not hinder a removal."""
        try:
            return ask(self._containers.inside, user) if self._runs(user, uid) else []
        except LabshellError:
            return []

    def _runs(self, user: str, uid: int) -> bool:
        try:
            return self._containers.owned(user, uid).state == "Running"
        except NoContainer:
            return False


def _of_key(opened: list[Session], fingerprint: str) -> list[Session]:
    """The sessions of a key, and those whose key is unknown; a line that is no key has opened none."""
    if not FINGERPRINT.fullmatch(fingerprint):
        return []
    return [session for session in opened if session.fingerprint in (fingerprint, None)]


def _is_last(key: PublicKey | None, listed: list[PublicKey]) -> bool:
    """Whether no other key on the host is one to log in with."""
    return key in listed and not [other for other in keys.readable(listed) if other != key]


def _described(key: PublicKey, *, only_inside: bool) -> Key:
    return {
        "kind": key.kind,
        "fingerprint": key.fingerprint,
        "comment": key.comment or None,
        "options": key.options_text or None,
        "only_inside": only_inside,
    }
