"""What `labshell-admin show` prints: a user as a card, every value with its unit. Pure."""

from __future__ import annotations

from labshell import shown
from labshell.operations import plans
from labshell.shell import card
from labshell.wire.admin import User

LABEL_WIDTH = 14
NOT_LIVE = "not live: run labshell-admin reconcile"


def text(about: User) -> str:
    """The card of the user that Show has answered with."""
    name, host = about["user"], about["host"]
    state = about["state"]
    if about.get("uptime_seconds") is not None:
        state = f"{state} for {shown.duration(about['uptime_seconds'])}"
    lines = ["", f"  {shown.plain(name)} on {shown.plain(host)} (uid {about['uid']}): {state}", ""]
    for label, values in [*_ways_in(about), *_settings(about), *_rest(about)]:
        for number, value in enumerate(values):
            lines.append(f"  {shown.padded(label if number == 0 else '', LABEL_WIDTH)}{shown.plain(value)}".rstrip())
    return "\n".join(lines) + "\n"


def _ways_in(about: User) -> list[tuple[str, list[str]]]:
    ports = f"{about['port']} to {about['last_port']}; {about['port']} is SSH" if about.get("port") else "none"
    return [
        ("Log in", [card.way_in(about) or "-"]),
        ("Address", [about.get("address") or "-"]),
        *([("Ports", [ports])] if about["has_ports"] else []),
        ("Own ports", about["forwards"] or ["none"]),
        *([("Rules", ["live" if about["rules_are_live"] else NOT_LIVE])] if about["has_ports"] else []),
        ("Host key", [about.get("fingerprint") or "-"]),
        ("Keys", about["keys"] or ["none: the user cannot log in"]),
        ("Last login", [shown.moment(about.get("last_login")) if about.get("last_login") else "never"]),
    ]


def _settings(about: User) -> list[tuple[str, list[str]]]:
    """Every setting, with its current use."""
    used = {
        "memory": shown.size(about["memory_used"]) if about.get("memory_used") is not None else "",
        "disk": shown.size(about["disk_used"]) if about.get("disk_used") is not None else "",
        "processes": str(about["processes"]) if about.get("processes") is not None else "",
    }
    rows = []
    for name, value in about["settings"].items():
        said = plans.said(name, value)
        values = said.split(", ") if name in ("gpus", "mounts") else [said]
        if used.get(name):
            values = [f"{used[name]} in use, {said}" if said == "no limit" else f"{used[name]} of {said}"]
        rows.append((name, values))
    return rows


def _rest(about: User) -> list[tuple[str, list[str]]]:
    snapshots = [f"{kept['name']}, {shown.moment(kept['created'])}" for kept in about["snapshots"]]
    rows = [
        ("Template", [about.get("template") or "unknown"]),
        ("Profile", [about.get("profile") or "none"]),
        ("Snapshots", snapshots or ["none"]),
    ]
    if about.get("kept"):
        rows.append(("Kept", [f"the container from before the rebuild of {shown.moment(about['kept'])}"]))
    if about.get("stops_at"):
        rows.append(("Idle", [f"stops at {shown.moment(about['stops_at'])}"]))
    if about.get("held_until"):
        reason = f": {about['held_for']}" if about.get("held_for") else ""
        rows.append(("Keep", [f"until {shown.moment(about['held_until'])}{reason}"]))
    return rows
