"""What a container has and what a command would do, in the administrator's words with values and units. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labshell import shown
from labshell.model.container import Container
from labshell.model.keys import PublicKey
from labshell.model.settings import DESKTOP, DESKTOP_PORT, NONE, SETTINGS, SIZES
from labshell.wire.admin import SettingChange


def held(container: Container) -> dict[str, str]:
    """What a container has now, by setting and as it is written there."""
    config = container.config
    desktop = [own.port for own in container.forwards if own.target == DESKTOP]
    return {
        **{name: config.get(f"limits.{name}") or NONE for name in ("cpu", "memory")},
        "disk": container.disk_limit or NONE,
        "processes": config.get("limits.processes") or NONE,
        "gpus": container.gpus,
        "mounts": container.mounts or NONE,
        "nesting": "yes" if config.get("security.nesting") == "true" else "no",
        DESKTOP_PORT: str(desktop[0]) if desktop else NONE,
        "expires": container.expires.isoformat() if container.expires else NONE,
    }


def said(name: str, text: str) -> str:
    """The value of a setting with its unit: "64 GiB", "8 processors"."""
    is_none = text in ("", NONE)
    if name in SIZES:
        return "no limit" if is_none else shown.limit(text)
    if name == "cpu":
        words = "processors " + text if "-" in text else counted(text, "processor")
        return "no limit" if is_none else words
    if name == "processes":
        return "no limit" if is_none else counted(text, "process")
    if name == "gpus":
        return "all" if text == "all" else NONE if is_none else ", ".join(text.split(","))
    if name == "mounts":
        return NONE if is_none else ", ".join(map(_mount, text.split(",")))
    if name == "expires":
        return "never" if is_none else text
    return text or NONE


def counted(number: object, one: str) -> str:
    """A number of things: "1 process", "8 processes"."""
    if str(number) == "1":
        return f"1 {one}"
    return f"{number} {one}{'es' if one.endswith('s') else 's'}"


def _mount(text: str) -> str:
    source, _, rest = text.partition(":")
    target, *flags = rest.split(":")
    words = {"ro": "read-only", "noshift": "owners unchanged"}
    notes = "; ".join(word for flag, word in words.items() if flag in flags)
    return f"{source} at {target}" + (f" ({notes})" if notes else "")


def labelled(settings: Mapping[str, str]) -> str:
    """Settings on one line: "cpu 8 processors, memory 64 GiB"."""
    return ", ".join(f"{name} {said(name, settings[name])}" for name in SETTINGS if name in settings)


@dataclass(frozen=True)
class Change:
    """One value before and after a command, as the command takes it, and the line that says so."""

    what: str
    before: str
    after: str

    @property
    def row(self) -> SettingChange:
        return {"what": self.what, "before": self.before, "after": self.after, "text": self.text}

    @property
    def text(self) -> str:
        before, after = said(self.what, self.before), said(self.what, self.after)
        if self.before == self.after:
            return f"{self.what}: {after}, as before"
        if before == after:  # two ways to write what rounds to the same
            before, after = self.before, self.after
        return f"{self.what}: {before} -> {after}"


def changes(before: Mapping[str, str], wanted: Mapping[str, str]) -> list[Change]:
    """What becomes of each setting that is asked for."""
    return [Change(name, before.get(name, NONE), text or NONE) for name, text in wanted.items()]


def key_names(keys: Iterable[PublicKey]) -> str:
    """Public keys by fingerprint and comment."""
    return ", ".join(f"{key.fingerprint} {key.comment}".strip() for key in keys)


# What a command would do -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewAccount:
    """What add-user and restore-user would make, where it is known."""

    name: str
    uid: int
    address: str
    ports: str  # "22000-22009", empty where ports lead nowhere
    is_account_new: bool = True
    is_container_new: bool = True


def to_add(new: NewAccount, template: str, keys: Sequence[PublicKey], settings: Mapping[str, str],
           *, has_password: bool) -> list[str]:  # fmt: skip
    """add-user, as sentences."""
    lines = []
    names = f"{counted(len(keys), 'key')}: {key_names(keys)}"
    if new.is_account_new:
        lines += [f"Would make the account {new.name} (uid {new.uid}) with {names}."]
    if new.is_container_new:
        at = f" at {new.address}" if new.address else ""
        lines += [f"Would clone the template {template} as the container {new.name}{at}."]
        lines += [f"Would give it: {labelled(settings)}."]
        if has_password:
            lines += ["Would set a random password and show it once."]
    if new.ports:
        lines += [f"Would give {new.name} the ports {new.ports}."]
    lines += [f"Would start the container {new.name} and wait for its SSH server."]
    return lines


def to_remove(name: str, uid: int | None, containers: Sequence[Container], archives: Sequence[str],
              ports: str, quarantine_days: int) -> list[str]:  # fmt: skip
    """remove-user, as sentences."""
    lines = []
    if uid is not None:
        lines += [f"Would lock the account {name} (uid {uid}) and end its sessions."]
    lines += [f"Would stop the container {item.name}." for item in containers if item.state != "Stopped"]
    lines += [f"Would write the archive {path}." for path in archives]
    if containers and not archives:
        lines += ["Would make no archive."]
    lines += [f"Would delete the container {item.name} with its snapshots." for item in containers]
    if ports:
        rest = f", and keep them in quarantine for {counted(quarantine_days, 'day')}" if quarantine_days else ""
        lines += [f"Would free the ports {ports}{rest}."]
    if uid is not None:
        lines += [f"Would remove the account {name} and its keys."]
    return lines


def to_add_service(name: str, address: str, template: str, forwards: Iterable[str], settings: Mapping[str, str],
                   *, autostart: bool) -> list[str]:  # fmt: skip
    """add-service, as sentences."""
    at = f" at {address}" if address else ""
    return [
        f"Would clone the template {template} as the service {name}{at}.",
        f"Would give it: {labelled(settings)}.",
        f"Would forward {', '.join(forwards)} (the host's port first).",
        f"Would start the container {name}" + (", and start it with the host from then on." if autostart else "."),
    ]
