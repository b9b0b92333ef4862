"""What the connection card and the status say. Pure: a Status of the daemon's in, text out.

The card is what a new student needs: lines to copy, exact to the letter. It fits 80 columns with host names of
ordinary length, and a line to copy is never broken.
"""

from __future__ import annotations

from labshell.language import _, mark
from labshell.shown import duration, limit, moment, padded, plain, sentence, size, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

LABEL_WIDTH = 13
RESULT_WIDTH = 8
MOST_NEIGHBOURS = 20
MOST_COLUMNS = 80 - 2 - LABEL_WIDTH
STATE_COLOURS = {mark("running"): "32", mark("stopped"): "33", mark("frozen"): "33"}


class Style:
    """How to emphasise: with ANSI colours, or not at all."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def bold(self, text: str) -> str:
        return self._in("1", text)

    def dim(self, text: str) -> str:
        return self._in("2", text)

    def state(self, state: str) -> str:
        return self._in(STATE_COLOURS.get(state, "31"), _(plain(state)))

    def result(self, result: str) -> str:
        colour, word = {"good": ("32", _("good")), "bad": ("31", _("bad"))}.get(result, ("33", _("unknown")))
        return self._in(colour, padded(word, RESULT_WIDTH))

    def _in(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


def card(status: Mapping[str, Any], style: Style) -> str:
    """The connection card for a container that runs, or what to do for one that does not."""
    user, host = plain(status["user"]), plain(status["host"])
    state = style.state(status["state"])
    if status.get("uptime_seconds") is not None:
        state = _("{state} for {time}").format(state=state, time=duration(status["uptime_seconds"]))
    title = style.bold(_("{user} on {host}").format(user=user, host=host))
    lines = ["", f"  {title}: {state}", ""]
    connections = _connections(status)
    if connections:
        lines += [_row(label, text, style) for label, text in connections]
        keys = fingerprints(status)
        lines += [_row(_("Host key") if key == keys[0] else "", key, style) for key in keys]
        if keys:
            lines += [_row("", _("compare with the fingerprint ssh shows on first connection"), style, dim=True)]
    else:
        label = _("Port") if status["has_ports"] else _("Address")
        lines += [_row(label, _("not assigned yet; run `start`"), style)]
    lines += ["", *(_row(label, text, style) for label, text in (*_usage(status), *_idle(status))), ""]
    return "\n".join(lines) + "\n"


def way_in(status: Mapping[str, Any]) -> str:
    """The line that logs in: "ssh -p 20010 alice@gpu1"; empty if nothing leads to the container yet."""
    words = _destination(status)
    return " ".join(["ssh", *words]) if words else ""


def _destination(status: Mapping[str, Any]) -> list[str]:
    user, host, port, address = (
        plain(status["user"]),
        plain(status["host"]),
        status.get("port"),
        status.get("address"),
    )
    if not status["has_ports"]:
        return [f"{user}@{plain(address)}"] if address else []
    return ["-p", str(port), f"{user}@{host}"] if port else []


def _connections(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    words = _destination(status)
    if not words:
        return []
    *port, destination = words
    copy = " ".join(["scp", *(word.replace("-p", "-P") for word in port)])
    return [
        (_("Log in"), way_in(status)),
        (_("Copy there"), f"{copy} {_('FILE')} {destination}:"),
        (_("Copy back"), f"{copy} {destination}:{_('FILE')} ."),
        ("VS Code", _('Remote-SSH: Add New SSH Host, then paste the "Log in" command')),
    ]


def fingerprints(status: Mapping[str, Any]) -> list[str]:
    """The keys of the two SSH servers a user meets, each with the place where ssh asks about it."""
    gateway, container = status.get("gateway_fingerprint"), status.get("fingerprint")
    place = _("port {port}").format(port=status["port"]) if status.get("port") else _("container")
    keys = [(gateway, _("port {port}").format(port=status["host_port"])), (container, place)]
    return [f"{plain(key)}  {place}" for key, place in keys if key]


def _usage(status: Mapping[str, Any], cpu: float | None = None) -> list[tuple[str, str]]:
    """What the user and the host use, in as many rows as 80 columns need."""
    parts = []
    if cpu is not None:
        parts.append(_("{busy} processors busy").format(busy=f"{cpu:.1f}"))
    runs = status["state"] in ("running", "frozen")
    if status.get("memory_used") is not None:
        parts.append(_("memory {memory}").format(memory=_of(status["memory_used"], status.get("memory_limit"))))
    if status.get("disk_used") is not None:
        parts.append(_("disk {disk}").format(disk=_of(status["disk_used"], status.get("disk_limit"))))
    if runs and status.get("processes") is not None:
        parts.append(_("{count} processes").format(count=status["processes"]))
    if runs and status.get("cpu_limit"):
        parts.append(_("CPU limit {limit}").format(limit=plain(status["cpu_limit"])))
    memory = _of(status["host_memory_used"], size(status["host_memory_total"]))
    load = _("load {load} on {count} processors")
    host = [
        load.format(load=f"{status['host_load']:.1f}", count=status["host_processors"]),
        _("memory {memory}").format(memory=memory),
    ]
    warning = [(_("Disk full"), _("delete files first; do not stop or restart before"))]
    return [*_rows(_("You use"), parts), *(warning * bool(status.get("disk_full"))), *_rows(_("This host"), host)]


def _rows(label: str, parts: list[str]) -> list[tuple[str, str]]:
    """Parts with commas between them under one label, broken where 80 columns end."""
    rows: list[tuple[str, str]] = []
    comma = _(", ")
    for part in parts:
        if rows and width(rows[-1][1] + comma + part) <= MOST_COLUMNS:
            rows[-1] = (rows[-1][0], rows[-1][1] + comma + part)
        else:
            rows.append(("" if rows else label, part))
    return rows


def _of(used: int, most: str | None) -> str:
    return _("{used} of {limit}").format(used=size(used), limit=limit(most)) if most else size(used)


def _row(label: str, text: str, style: Style, *, dim: bool = False) -> str:
    return f"  {style.dim(padded(label, LABEL_WIDTH))}{style.dim(text) if dim else text}"


def status_text(status: Mapping[str, Any], style: Style) -> str:
    """The facts of the card without its lines to copy."""
    rows = [(_("State"), style.state(status["state"]))]
    if status.get("uptime_seconds") is not None:
        rows.append((_("Up for"), duration(status["uptime_seconds"])))
    rows.append((_("Address"), plain(status.get("address") or "-")))
    if status.get("port"):
        on_host = _("{port} on {host}").format(port=status["port"], host=plain(status["host"]))
        rows.append((_("SSH port"), on_host))
        if status["last_port"] > status["port"]:
            rows.append((_("Your ports"), _span(status["port"], status["last_port"])))
    if status.get("kept"):
        text = _("the container from before the rebuild of {moment}").format(moment=moment(status["kept"]))
        rows.append((_("Kept"), text))
        rows.append(("", _("`rebuild undo` brings it back, `rebuild forget` frees its space")))
    if status.get("maintenance") is not None:
        rows.append((_("Maintenance"), _("new starts are disabled")))
        rows += [("", plain(status["maintenance"]))] if status["maintenance"] else []
    rows += [*_usage(status), *_idle(status)]
    return "".join(_row(label, text, style) + "\n" for label, text in rows)


def _span(first: int, last: int) -> str:
    return _("{first} to {last}").format(first=first, last=last)


def keep_text(status: Mapping[str, Any], style: Style) -> str:
    """Whether the container is stopped when nobody uses it, and what holds that off."""
    rows = _idle(status)
    if not rows:
        days = status["idle_stop_days"]
        text = _("This host stops no idle containers.")
        if days:
            text = _("stopped after {days} days without use; run `keep 3d` to prevent it")
        rows = [(_("Idle"), text.format(days=days))]
    return "".join(_row(label, text, style) + "\n" for label, text in rows)


def _idle(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if status.get("stops_at"):
        text = _("will stop at {moment}; run `keep 3d` to prevent it").format(moment=moment(status["stops_at"]))
        rows.append((_("Idle"), text))
    if status.get("held_until"):
        text = _("exempt from idle stop until {moment}").format(moment=moment(status["held_until"]))
        rows.append((_("Idle"), text))
        if status.get("held_for"):
            rows.append(("", plain(status["held_for"])))
    return rows


def forwards_text(status: Mapping[str, Any], forwards: list[Mapping[str, Any]], style: Style) -> str:
    """The user's own ports and where to point a browser."""
    host = plain(status["host"])
    lines = []
    for forward in forwards:
        notes = [plain(forward["name"])] if forward.get("name") else []
        if forward.get("source"):
            notes.append(_("from {network}").format(network=plain(forward["source"])))
        if forward.get("seconds_left") is not None:
            notes.append(_("for another {time}").format(time=duration(forward["seconds_left"])))
        text = _("{address} is forwarded to port {target}")
        text = text.format(address=f"http://{host}:{forward['port']}", target=forward["target"])
        lines.append(_row(str(forward["port"]), text, style))
        if notes:
            lines.append(_row("", _(", ").join(notes), style, dim=True))
    if not status["has_ports"]:
        lines.append("  " + _("Every port of your container is reached at its own address."))
    elif not lines:
        lines.append("  " + _("None yet: `ports add 8888` forwards a port to 8888 of the container."))
    if status.get("port"):
        first, last = status["port"] + 1, status["last_port"]
        free = _("{count} of {span} are free.").format(
            count=last - first + 1 - len(forwards), span=_span(first, last)
        )
        lines.append(f"  {style.dim(free)}")
    return "\n".join(lines) + "\n"


def snapshots_text(snapshots: list[Mapping[str, Any]], style: Style) -> str:
    """Kept states, oldest first."""
    lines = []
    for snapshot in snapshots:
        about = [moment(snapshot["created"])]
        if snapshot.get("size"):
            about.append(size(snapshot["size"]))
        lines.append(f"  {plain(snapshot['name']):34}{style.dim(_(', ').join(about))}")
    return "\n".join(lines or ["  " + _("None yet: `snapshot create` saves the container's current state.")]) + "\n"


def keys_text(keys: list[Mapping[str, Any]], style: Style) -> str:
    """The user's public keys, by number."""
    lines = []
    for number, key in enumerate(keys, start=1):
        lines += _key(f"{number}  ", key, style)
    if not any(not key.get("only_inside") for key in keys):
        lines.append("  " + _("No keys: you cannot log in until an administrator adds one."))
    return "\n".join(lines) + "\n"


def _key(number: str, key: Mapping[str, Any], style: Style) -> list[str]:
    """One key, with what is to be known of it below."""
    notes = [key["fingerprint"], key.get("options")]
    notes += [_("this login")] if key.get("this_login") else []
    if key.get("only_inside"):
        notes.append(_("only in the container: written there by hand, not for the host"))
    indent = " " * (2 + len(number))
    first = f"  {style.bold(number.rstrip())}{number[len(number.rstrip()) :]}{plain(key['kind'])}"
    first = f"{first}  {plain(key.get('comment') or '')}".rstrip()
    return [first, *(f"{indent}{style.dim(plain(note))}" for note in notes if note)]


def key_to_remove(
    found: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]], style: Style, *, is_own: bool
) -> str:
    """A key that is about to be removed, and what is open that came with it."""
    lines = _key("", found["key"], style) if found.get("key") else [f"  {plain(found['fingerprint'])}"]
    if is_own:
        lines.append("  " + style.dim(_("This is the key of this login.")))
    if found["is_last"]:
        lines.append("  " + _("Your last key: without it you cannot log in until an administrator adds one."))
    if sessions:
        lines.append("  " + _("Open sessions of this key:"))
    for opened in sessions:
        where = _("on the host") if opened["where"] == "host" else _("in the container")
        address = _("from {network}").format(network=plain(opened["address"] or "?"))
        unknown = "" if opened["is_known"] else _("perhaps of another key")
        lines.append(f"    {padded(where, 18)}{padded(address, 24)}{unknown}".rstrip())
    return "\n".join(lines) + "\n"


def usage_text(usage: Mapping[str, Any], style: Style) -> str:
    """What oneself uses, and who else is at work."""
    report, others = usage["report"], usage["others"]
    lines = [_row(label, text, style) for label, text in _usage(report, usage.get("cpu"))]
    lines.append("")
    for other in others[:MOST_NEIGHBOURS]:
        busy = "?" if other.get("cpu") is None else f"{other['cpu']:.1f}"
        about = [
            _("{busy} processors busy").format(busy=busy),
            _("memory {memory}").format(memory=size(other["memory"])),
        ]
        lines.append(f"  {padded(plain(other['user']), 34)}{_(', ').join(about)}")
    if len(others) > MOST_NEIGHBOURS:
        lines.append("  " + _("and {count} more").format(count=len(others) - MOST_NEIGHBOURS))
    if not others:
        lines.append("  " + _("No other user's container is running."))
    return "\n".join(lines) + "\n"


def gpus_text(report: Mapping[str, Any], style: Style) -> str:
    """Every GPU: how busy, how full, how hot, and whose processes are on it."""
    if report.get("why_none"):
        return f"  {sentence(report['why_none'])}\n"
    lines = []
    for gpu in report["gpus"]:
        about = [
            "?" if gpu.get("utilization") is None else _("{percent} % busy").format(percent=gpu["utilization"]),
            _("memory {memory}").format(memory=_of(gpu.get("memory_used"), size(gpu.get("memory_total")))),
        ]
        if gpu.get("temperature") is not None:
            about.append(f"{gpu['temperature']} °C")
        lines.append(f"  {style.bold(str(gpu['index']))}  {style.bold(plain(gpu['model']))}")
        lines.append(f"     {_(', ').join(about)}")
        for holder in gpu["users"]:
            name = _("other") if holder["user"] == "other" else plain(holder["user"])
            lines.append(f"     {padded(name, 34)}{size(holder.get('memory'))}")
    return "\n".join(lines or ["  " + _("The driver reports no GPU.")]) + "\n"


def doctor_text(findings: list[Mapping[str, Any]], style: Style) -> str:
    """One line for each finding, and one for what to do about it."""
    lines = []
    for found in findings:
        label = style.dim(padded(_(plain(found["check"])), LABEL_WIDTH))
        lines.append(f"  {style.result(found['result'])}{label}{sentence(found['finding'])}")
        if found.get("remedy"):
            lines.append(f"  {' ' * (RESULT_WIDTH + LABEL_WIDTH)}{sentence(found['remedy'])}")
    return "\n".join(lines) + "\n"
