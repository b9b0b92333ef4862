"""What the answer to each verb says. Pure: values of the daemon's in, text out; a plain login does not load it."""

from __future__ import annotations

from labshell.language import _
from labshell.shell.card import LABEL_WIDTH, RESULT_WIDTH, Style, idle_rows, of_limit, row, span, usage_rows
from labshell.shown import duration, moment, padded, plain, sentence, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    from labshell.wire.gateway import (
        ContainerReport,
        Finding,
        FoundKey,
        GpuReport,
        Key,
        KeySession,
        Ports,
        Progress,
        Snapshot,
        UsageReport,
    )

    class OpenSession(KeySession):
        """A session of a key, with where it is: \"host\" or \"container\"."""

        where: str

    class WhoAmI(TypedDict):
        """What `whoami` says."""

        user: str
        host: str
        state: str
        address: str | None
        port: int | None
        notice: Progress | None
        container: str
        version: str


MOST_NEIGHBOURS = 20


def keep_text(status: ContainerReport, style: Style) -> str:
    """Whether the container is subject to idle stop, and what exempts it."""
    rows = idle_rows(status)
    if not rows:
        days = status["idle_stop_days"]
        text = _("This host stops no idle containers.")
        if days:
            text = _("stopped after {days} days without use; run `keep 3d` to prevent it")
        rows = [(_("Idle"), text.format(days=days))]
    return "".join(row(label, text, style) + "\n" for label, text in rows)


def whoami_text(about: WhoAmI, style: Style) -> str:
    """The user, their container and where it is reached, and the version."""
    where = _("{port} on {host}").format(port=about["port"], host=plain(about["host"])) if about["port"] else "-"
    rows = [
        (_("User"), _("{user} on {host}").format(user=plain(about["user"]), host=plain(about["host"]))),
        (_("Container"), f"{plain(about['container'])}  {style.state(about['state'])}"),
        (_("Address"), plain(about["address"] or "-")),
        (_("SSH port"), where),
        (_("Version"), f"labshell {about['version']}"),
    ]
    return "".join(row(label, text, style) + "\n" for label, text in rows)


def forwards_text(ports: Ports, style: Style) -> str:
    """The user's own ports and where to point a browser."""
    host, forwards = plain(ports["host"]), ports["forwards"]
    lines = []
    for forward in forwards:
        notes = [plain(forward["name"])] if forward.get("name") else []
        if forward.get("source"):
            notes.append(_("from {network}").format(network=plain(forward["source"])))
        if forward.get("seconds_left") is not None:
            notes.append(_("for another {time}").format(time=duration(forward["seconds_left"])))
        text = _("{address} is forwarded to port {target}")
        text = text.format(address=f"http://{host}:{forward['port']}", target=forward["target"])
        lines.append(row(str(forward["port"]), text, style))
        if notes:
            lines.append(row("", _(", ").join(notes), style, dim=True))
        if forward.get("listens") == "localhost":
            lines.append(row("", _("its program listens on localhost only; start it on 0.0.0.0"), style))
        elif forward.get("listens") == "nowhere":
            lines.append(row("", _("nothing listens on port {target} yet").format(target=forward["target"]), style))
    if not ports["has_ports"]:
        lines.append("  " + _("Every port of your container is reached at its own address."))
    elif not lines:
        lines.append("  " + _("None yet: `ports add 8888` forwards a port to 8888 of the container."))
    port, last = ports.get("port"), ports.get("last_port")
    if port and last:
        first = port + 1
        free = _("{count} of {span} are free.").format(count=last - first + 1 - len(forwards), span=span(first, last))
        lines.append(f"  {style.dim(free)}")
    return "\n".join(lines) + "\n"


def snapshots_text(snapshots: Sequence[Snapshot], style: Style) -> str:
    """Kept states, oldest first."""
    lines = []
    for snapshot in snapshots:
        about = [moment(snapshot["created"])]
        if snapshot.get("size"):
            about.append(size(snapshot["size"]))
        lines.append(f"  {plain(snapshot['name']):34}{style.dim(_(', ').join(about))}")
    return "\n".join(lines or ["  " + _("None yet: `snapshot create` saves the container's current state.")]) + "\n"


def keys_text(keys: Sequence[Key], style: Style) -> str:
    """The user's public keys, by number."""
    lines = []
    for number, key in enumerate(keys, start=1):
        lines += _key(f"{number}  ", key, style)
    if not any(not key.get("only_inside") for key in keys):
        lines.append("  " + _("No keys: you cannot log in until an administrator adds one."))
    return "\n".join(lines) + "\n"


def _key(number: str, key: Key, style: Style) -> list[str]:
    """One key, with what is to be known of it below."""
    notes = [key["fingerprint"], key.get("options")]
    notes += [_("this login")] if key.get("this_login") else []
    notes += [_("no public key; it is kept until you remove it")] if key["kind"] == "unreadable" else []
    if key.get("only_inside"):
        notes.append(_("only in the container: written there by hand, not for the host"))
    indent = " " * (2 + len(number))
    first = f"  {style.bold(number.rstrip())}{number[len(number.rstrip()) :]}{plain(key['kind'])}"
    first = f"{first}  {plain(key.get('comment') or '')}".rstrip()
    return [first, *(f"{indent}{style.dim(plain(note))}" for note in notes if note)]


def key_to_remove(found: FoundKey, sessions: Sequence[OpenSession], style: Style, *, is_own: bool) -> str:
    """A key that is about to be removed, and what is open that came with it."""
    key = found.get("key")
    lines = _key("", key, style) if key else [f"  {plain(found['fingerprint'])}"]
    if is_own:
        lines.append("  " + style.dim(_("This is the key of this login.")))
    if found["is_last"]:
        lines.append("  " + _("Your last key: without it you cannot log in until an administrator adds one."))
    if sessions:
        lines.append("  " + _("Open sessions of this key:"))
    for opened in sessions:
        where = _("on the host") if opened["where"] == "host" else _("in the container")
        address = _("from {network}").format(network=plain(opened.get("address") or "?"))
        unknown = "" if opened["is_known"] else _("perhaps of another key")
        lines.append(f"    {padded(where, 18)}{padded(address, 24)}{unknown}".rstrip())
    return "\n".join(lines) + "\n"


def usage_text(usage: UsageReport, style: Style) -> str:
    """What oneself uses, and who else is at work."""
    report, others = usage["report"], usage["others"]
    lines = [row(label, text, style) for label, text in usage_rows(report, usage.get("cpu"))]
    lines.append("")
    for other in others[:MOST_NEIGHBOURS]:
        busy = "?" if other.get("cpu") is None else f"{other['cpu']:.1f}"
        about = [
            _("{busy} processors busy").format(busy=busy),
            _("memory {memory}").format(memory=size(other.get("memory"))),
        ]
        lines.append(f"  {padded(plain(other['user']), 34)}{_(', ').join(about)}")
    if len(others) > MOST_NEIGHBOURS:
        lines.append("  " + _("and {count} more").format(count=len(others) - MOST_NEIGHBOURS))
    if not others:
        lines.append("  " + _("No other user's container is running."))
    return "\n".join(lines) + "\n"


def gpus_text(report: GpuReport, style: Style) -> str:
    """Every GPU: how busy, how full, how hot, and whose processes are on it."""
    if why := report.get("why_none"):
        return f"  {sentence(why)}\n"
    lines = []
    for gpu in report["gpus"]:
        about = [
            "?" if gpu.get("utilization") is None else _("{percent} % busy").format(percent=gpu["utilization"]),
            _("memory {memory}").format(memory=of_limit(gpu.get("memory_used"), size(gpu.get("memory_total")))),
        ]
        if gpu.get("temperature") is not None:
            about.append(f"{gpu['temperature']} °C")
        lines.append(f"  {style.bold(str(gpu['index']))}  {style.bold(plain(gpu['model']))}")
        lines.append(f"     {_(', ').join(about)}")
        for holder in gpu["users"]:
            name = _("other") if holder["user"] == "other" else plain(holder["user"])
            lines.append(f"     {padded(name, 34)}{size(holder.get('memory'))}")
    return "\n".join(lines or ["  " + _("The driver reports no GPU.")]) + "\n"


def doctor_text(findings: Sequence[Finding], style: Style) -> str:
    """One line for each finding, and one for what to do about it."""
    lines = []
    for found in findings:
        label = style.dim(padded(_(plain(found["check"])), LABEL_WIDTH))
        lines.append(f"  {style.result(found['result'])}{label}{sentence(found['finding'])}")
        if remedy := found.get("remedy"):
            lines.append(f"  {' ' * (RESULT_WIDTH + LABEL_WIDTH)}{sentence(remedy)}")
    return "\n".join(lines) + "\n"
