"""labshell's own keys in an instance's config: what it keeps of a container, with the container."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict

from labshell.engine import records
from labshell.engine.client import Engine
from labshell.engine.errors import CHANGE, translate_errors
from labshell.model.container import Hold, OwnForward


class Marks:
    """The marks of one engine's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def adopt(self, name: str, uid: int, address: str, host_key: str) -> None:
        """Give a container that was made by hand its owner; what is inside stays as it is.

        The address is remembered and pinned while it is stopped: a running one would lose its network.
        """
        marks = {records.HOST_KEY: host_key, records.ADDRESS: address}
        config = {**records.SAFE_CONFIG, **records.owned_by(name, uid), records.PREPARED: "true", **marks}
        # These need a restart, or re-own every file: as they were, and doctor says so.
        for key in ("security.nesting", "security.idmap.isolated", "security.privileged"):
            del config[key]
        self._set(name, config)

    def set_owner(self, name: str, user: str, uid: int) -> None:
        """Mark a container with its owner, whatever else it is."""
        self._set(name, records.owned_by(user, uid))

    def set_service(self, name: str, *, autostart: bool) -> None:
        """Mark a container as a service, without an owner; with `autostart` the engine starts it at boot."""
        self._set(name, {records.SERVICE: "true", "boot.autostart": "true" if autostart else ""})

    def set_template(self, name: str) -> None:
        self._set(name, {records.TEMPLATE: "true"})

    def set_prepared(self, name: str) -> None:
        """From here on it has an owner: it is never deleted to begin again."""
        self._set(name, {records.PREPARED: "true"})

    def set_host_key(self, name: str, host_key: str) -> None:
        """Remember the container's public host key, for the card and for known_hosts."""
        self._set(name, {records.HOST_KEY: host_key})

    def set_forwards(self, name: str, forwards: Collection[OwnForward]) -> None:
        self._set(name, {records.FORWARDS: json.dumps([asdict(own) for own in forwards])})

    def set_profile(self, name: str, profile: str) -> None:
        """The profile of settings that it was given last, for show."""
        self._set(name, {records.PROFILE: profile})

    def set_kept(self, name: str, kept: str) -> None:
        """Remember which container was put aside for this one; empty for none."""
        self._set(name, {records.KEPT: kept})

    def set_hold(self, name: str, hold: Hold | None) -> None:
        """Remember that a container is not to be stopped for being idle; None takes that back."""
        self._set(name, {records.HOLD: json.dumps(asdict(hold)) if hold else ""})

    def set_archived(self, name: str, text: str) -> None:
        """Keep a text with the container, to go into its archive."""
        self._set(name, {records.ARCHIVED: text})

    def archived(self, name: str) -> str:
        return self._get(name, records.ARCHIVED)

    def set_restoring(self, name: str, token: str) -> None:
        """Set a mark that a restore takes away, with all other settings: so it tells whether one has happened."""
        self._set(name, {records.RESTORING: token})

    def is_restoring(self, name: str, token: str) -> bool:
        return self._get(name, records.RESTORING) == token

    def _get(self, name: str, key: str) -> str:
        with translate_errors(name, "be read"):
            return str(self._engine.read("instances", name)["config"].get(key, ""))

    def _set(self, name: str, config: Mapping[str, str]) -> None:
        with translate_errors(name, CHANGE):
            self._engine.patch(name, config)
