"""What the connection card and the status say. Pure: a report of the daemon's in, text out.

The card is what a new student needs: lines to copy, exact to the letter. It fits 80 columns with host names of
ordinary length, and a line to copy is never broken.
"""

from __future__ import annotations

from labshell.language import _, mark
from labshell.shown import duration, limit, moment, padded, plain, size, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labshell.wire.gateway import ContainerReport

LABEL_WIDTH = 13
RESULT_WIDTH = 8
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


def card(status: ContainerReport, style: Style) -> str:
    """The connection card for a container that runs, or what to do for one that does not."""
    user, host = plain(status["user"]), plain(status["host"])
    state = style.state(status["state"])
    if status.get("uptime_seconds") is not None:
        state = _("{state} for {time}").format(state=state, time=duration(status["uptime_seconds"]))
    title = style.bold(_("{user} on {host}").format(user=user, host=host))
    lines = ["", f"  {title}: {state}", ""]
    connections = _connections(status)
    if connections:
        lines += [row(label, text, style) for label, text in connections]
        keys = fingerprints(status)
        lines += [row(_("Host key") if key == keys[0] else "", key, style) for key in keys]
        if keys:
            lines += [row("", _("compare with the fingerprint ssh shows on first connection"), style, dim=True)]
    else:
        label = _("Port") if status["has_ports"] else _("Address")
        lines += [row(label, _("not assigned yet; run `start`"), style)]
    lines += ["", *(row(label, text, style) for label, text in (*usage_rows(status), *idle_rows(status))), ""]
    return "\n".join(lines) + "\n"


def way_in(status: ContainerReport) -> str:
    """The line that logs in: "ssh -p 20010 alice@gpu1"; empty if nothing leads to the container yet."""
    words = _destination(status)
    return " ".join(["ssh", *words]) if words else ""


def _destination(status: ContainerReport) -> list[str]:
    user, host, port, address = (
        plain(status["user"]),
        plain(status["host"]),
        status.get("port"),
        status.get("address"),
    )
    if not status["has_ports"]:
        return [f"{user}@{plain(address)}"] if address else []
    return ["-p", str(port), f"{user}@{host}"] if port else []


def _connections(status: ContainerReport) -> list[tuple[str, str]]:
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


def fingerprints(status: ContainerReport) -> list[str]:
    """The keys of the two SSH servers a user meets, each with the place where ssh asks about it."""
    gateway, container = status.get("gateway_fingerprint"), status.get("fingerprint")
    place = _("port {port}").format(port=status["port"]) if status.get("port") else _("container")
    keys = [(gateway, _("port {port}").format(port=status["host_port"])), (container, place)]
    return [f"{plain(key)}  {place}" for key, place in keys if key]


def usage_rows(status: ContainerReport, cpu: float | None = None) -> list[tuple[str, str]]:
    """What the user and the host use, in as many rows as 80 columns need."""
    parts = []
    if cpu is not None:
        parts.append(_("{busy} processors busy").format(busy=f"{cpu:.1f}"))
    runs = status["state"] in ("running", "frozen")
    if status.get("memory_used") is not None:
        parts.append(_("memory {memory}").format(memory=of_limit(status["memory_used"], status.get("memory_limit"))))
    if status.get("disk_used") is not None:
        parts.append(_("disk {disk}").format(disk=of_limit(status["disk_used"], status.get("disk_limit"))))
    if runs and status.get("processes") is not None:
        parts.append(_("{count} processes").format(count=status["processes"]))
    if runs and status.get("cpu_limit"):
        parts.append(_("CPU limit {limit}").format(limit=plain(status["cpu_limit"])))
    memory = of_limit(status["host_memory_used"], size(status["host_memory_total"]))
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


def of_limit(used: int | None, most: str | None) -> str:
    """A size, with its limit if it has one."""
    return _("{used} of {limit}").format(used=size(used), limit=limit(most)) if most else size(used)


def row(label: str, text: str, style: Style, *, dim: bool = False) -> str:
    """A line of the card: its label, and what it says."""
    return f"  {style.dim(padded(label, LABEL_WIDTH))}{style.dim(text) if dim else text}"


def status_text(status: ContainerReport, style: Style) -> str:
    """The facts of the card without its lines to copy."""
    rows = [(_("State"), style.state(status["state"]))]
    if status.get("uptime_seconds") is not None:
        rows.append((_("Up for"), duration(status["uptime_seconds"])))
    rows.append((_("Address"), plain(status.get("address") or "-")))
    port, last_port = status.get("port"), status.get("last_port")
    if port and last_port:
        rows.append((_("SSH port"), _("{port} on {host}").format(port=port, host=plain(status["host"]))))
        if last_port > port:
            rows.append((_("Your ports"), span(port, last_port)))
    if status.get("kept"):
        text = _("the container from before the rebuild of {moment}").format(moment=moment(status["kept"]))
        rows.append((_("Kept"), text))
        rows.append(("", _("`rebuild undo` brings it back, `rebuild forget` frees its space")))
    if status.get("maintenance") is not None:
        rows.append((_("Maintenance"), _("new starts are disabled")))
        rows += [("", plain(status["maintenance"]))] if status["maintenance"] else []
    rows += [*usage_rows(status), *idle_rows(status)]
    return "".join(row(label, text, style) + "\n" for label, text in rows)


def span(first: int, last: int) -> str:
    """Ports from one to another."""
    return _("{first} to {last}").format(first=first, last=last)


def idle_rows(status: ContainerReport) -> list[tuple[str, str]]:
    """When the container is stopped for being idle, and until when that is held off."""
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
