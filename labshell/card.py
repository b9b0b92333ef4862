"""What the connection card and the status say. Pure: a Status of the daemon's in, text out.

The card is what a new student needs: lines to copy, exact to the letter. It fits 80 columns with host names of
ordinary length, and a line to copy is never broken.
"""

from __future__ import annotations

from labshell.shown import duration, plain, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LABEL_WIDTH = 13
MOST_COLUMNS = 80 - 2 - LABEL_WIDTH
STATE_COLOURS = {"running": "32", "stopped": "33", "frozen": "33"}


class Style:
    """How to emphasise: with ANSI colours, or not at all."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def bold(self, text: str) -> str:
        return self._in("1", text)

    def dim(self, text: str) -> str:
        return self._in("2", text)

    def state(self, state: str) -> str:
        return self._in(STATE_COLOURS.get(state, "31"), state)

    def _in(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


def card(status: Mapping[str, Any], style: Style) -> str:
    """The connection card for a container that runs, or what to do for one that does not."""
    user, host = plain(status["user"]), plain(status["host"])
    since = f" for {duration(status['uptime_seconds'])}" if status.get("uptime_seconds") is not None else ""
    lines = ["", f"  {style.bold(f'{user} on {host}')}: {style.state(plain(status['state']))}{since}", ""]
    port = status.get("port")
    if port:
        lines += [_row(label, text, style) for label, text in _connections(user, host, port)]
        if status.get("fingerprint"):
            lines += [_row("Host key", plain(status["fingerprint"]), style)]
            lines += [_row("", "what ssh shows at the first connection, to compare", style, dim=True)]
    else:
        lines += [_row("Port", "none yet: start gives you one", style)]
    lines += ["", *(_row(label, text, style) for label, text in _usage(status)), ""]
    return "\n".join(lines) + "\n"


def _connections(user: str, host: str, port: int) -> list[tuple[str, str]]:
    return [
        ("Log in", f"ssh -p {port} {user}@{host}"),
        ("Copy there", f"scp -P {port} FILE {user}@{host}:"),
        ("Copy back", f"scp -P {port} {user}@{host}:FILE ."),
        ("VS Code", "Remote-SSH: Add New SSH Host, then paste the line of Log in"),
    ]


def _usage(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if status.get("memory_used") is not None:
        parts = [f"memory {_of(status['memory_used'], status.get('memory_limit'))}"]
        if status.get("disk_used") is not None:
            parts.append(f"disk {_of(status['disk_used'], status.get('disk_limit'))}")
        if status.get("processes") is not None:
            parts.append(f"{status['processes']} processes")
        if status.get("cpu_limit"):
            parts.append(f"CPU limit {plain(status['cpu_limit'])}")
        first = parts if len(", ".join(parts)) <= MOST_COLUMNS else parts[:2]
        rows.append(("You use", ", ".join(first)))
        if parts[len(first) :]:
            rows.append(("", ", ".join(parts[len(first) :])))
    memory = f"{size(status['host_memory_used'])} of {size(status['host_memory_total'])}"
    processors = status["host_processors"]
    rows.append(("This host", f"load {status['host_load']:.1f} on {processors} processors, memory {memory}"))
    return rows


def _of(used: int, limit: str | None) -> str:
    return f"{size(used)} of {plain(limit)}" if limit else size(used)


def _row(label: str, text: str, style: Style, *, dim: bool = False) -> str:
    return f"  {style.dim(f'{label:{LABEL_WIDTH}}')}{style.dim(text) if dim else text}"


def status_text(status: Mapping[str, Any], style: Style) -> str:
    """The facts of the card without its lines to copy."""
    rows = [("State", style.state(plain(status["state"])))]
    if status.get("uptime_seconds") is not None:
        rows.append(("Up for", duration(status["uptime_seconds"])))
    rows.append(("Address", plain(status.get("address") or "-")))
    if status.get("port"):
        rows.append(("SSH port", f"{status['port']} on {plain(status['host'])}"))
        if status["last_port"] > status["port"]:
            rows.append(("Your ports", f"{status['port']} to {status['last_port']}"))
    rows += _usage(status)
    return "".join(_row(label, text, style) + "\n" for label, text in rows)


def forwards_text(status: Mapping[str, Any], forwards: list[Mapping[str, Any]], style: Style) -> str:
    """The user's own ports and where to point a browser."""
    host = plain(status["host"])
    lines = []
    for forward in forwards:
        notes = [plain(forward["name"])] if forward.get("name") else []
        if forward.get("source"):
            notes.append(f"from {plain(forward['source'])}")
        if forward.get("seconds_left") is not None:
            notes.append(f"for another {duration(forward['seconds_left'])}")
        text = f"http://{host}:{forward['port']} leads to port {forward['target']} of the container"
        lines.append(_row(str(forward["port"]), text, style))
        if notes:
            lines.append(_row("", ", ".join(notes), style, dim=True))
    if not lines:
        lines.append("  None yet: ports add 8888 makes port 8888 of the container reachable.")
    if status.get("port"):
        first, last = status["port"] + 1, status["last_port"]
        lines.append(f"  {style.dim(f'{last - first + 1 - len(forwards)} of {first} to {last} are free.')}")
    return "\n".join(lines) + "\n"


def snapshots_text(snapshots: list[Mapping[str, Any]], style: Style) -> str:
    """Kept states, oldest first; times are UTC."""
    lines = []
    for snapshot in snapshots:
        about = plain(snapshot["created"])[:16].replace("T", " ") + " UTC"
        if snapshot.get("size"):
            about += f", {size(snapshot['size'])}"
        lines.append(f"  {plain(snapshot['name']):34}{style.dim(about)}")
    return "\n".join(lines or ["  None yet: snapshot create keeps the container as it is now."]) + "\n"


def keys_text(keys: list[Mapping[str, Any]], style: Style) -> str:
    """The user's public keys, by number."""
    lines = []
    for number, key in enumerate(keys, start=1):
        lines.append(f"  {style.bold(str(number))}  {plain(key['kind'])}  {plain(key.get('comment') or '')}".rstrip())
        lines.append(f"     {style.dim(plain(key['fingerprint']))}")
    return "\n".join(lines or ["  None: only the administrator can let you in again."]) + "\n"


SFTP_SERVERS = ("sftp-server", "internal-sftp")
FILE_PROGRAMS = ("scp", "rsync", "git-upload-pack", "git-receive-pack", "git-upload-archive")


def command_for_files(command: str) -> str | None:
    """What to run in the container for a command that a file program's client sent; None for anything else."""
    words = command.split(None, 1)
    if words[0].rpartition("/")[2] in SFTP_SERVERS:
        return "exec /usr/lib/openssh/sftp-server"
    return command if words[0] in FILE_PROGRAMS else None


def refusal(command: str, user: str, host: str, port: int | None) -> str:
    """One sentence for a command that is no verb: where such a thing works, exact to the letter."""
    word = plain(command.split()[0])[:40]
    ways = f"ssh {user}@{host} run {word}" + (f", or ssh -p {port} {user}@{host} {word}" if port else "")
    return f"{word} is not a verb of labshell (help lists them); programs run in your container: {ways}"
