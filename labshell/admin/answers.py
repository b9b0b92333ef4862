"""Ask the daemon, and print what it answers: as JSON, as a sentence or as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labshell import places, remedies, shown
from labshell.admin.options import Options
from labshell.errors import LabshellError
from labshell.wire import description, protocol

WIDTH_WITHOUT_TERMINAL = 1000  # for programs: nothing is broken or cut
NOTHING_CHANGED = "Nothing was changed."
SILENCE_SECONDS = 30  # the daemon says every few seconds that it is still at work


def ask(method: str, parameters: dict[str, Any], say: Callable[[str], None]) -> Any:
    """The daemon's answer, of the type that the interface says; `say` is told its progress meanwhile."""
    interface, result = description.load(protocol.ADMIN), None
    for reply in protocol.call(places.ADMIN_SOCKET, f"{protocol.ADMIN}.{method}", parameters, SILENCE_SECONDS):
        if interface.misfit(interface.methods[method].answers, reply) is not None:
            raise _outdated(method)
        if reply.get("progress"):
            say(shown.sentence(reply["progress"]))
        result = reply.get("result", result)
    if result is None:
        raise _outdated(method)
    return result


def _outdated(method: str) -> LabshellError:
    return LabshellError(
        "daemon-outdated",
        "labshell was updated and its daemon answers {method} as another version does: restart the daemon, and see "
        "whether the command was carried out.",
        method=method,
    )


def call(method: str, parameters: dict[str, Any], options: Options) -> Any:
    """The daemon's answer, with its progress printed, unless only JSON is wanted."""

    said = ""

    def say(text: str) -> None:
        nonlocal said
        if text != said and not options.json:
            print(f"{text} …", flush=True)
        said = text

    return ask(method, parameters, say)


def change(method: str, parameters: dict[str, Any], options: Options, words: Callable[[Any], str]) -> None:
    """Have something changed, and say so: as JSON, or in `words` for the answer."""
    result = call(method, parameters, options)
    if options.json:
        show_json(flat(result))
    else:
        print("\n".join([*result.get("would", ()), NOTHING_CHANGED]) if parameters.get("dry_run") else words(result))


def flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as --json prints it: the fields of its structures stand beside its other values."""
    values: dict[str, Any] = {}
    for name, value in result.items():
        values |= value if isinstance(value, dict) else {name: value}
    return values


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True))


def failure(error: LabshellError, *, as_json: bool) -> str:
    """What standard error says about an error: one line of JSON, or its sentence and the engine's own words.

    The remedy is for a terminal: a script that wants it asks for JSON.
    """
    remedy = shown.plain(remedies.of(error))
    if as_json:
        return json.dumps({"error": {"id": error.id, "message": shown.plain(error), "remedy": remedy or None}}) + "\n"
    lines = [f"labshell-admin: {shown.plain(error)}"]
    if error.detail:
        lines.append(f"The engine said: {shown.plain(error.detail)}")
    if sys.stderr.isatty() and remedy and remedy not in str(error):
        lines.append(f"Remedy: {remedy}")
    return "\n".join([*lines, ""])


def table(rows: Sequence[Mapping[str, Any]], columns: list[str], folded: tuple[str, ...] = ()) -> None:
    """Rows under headers, without columns that are empty in every row. Only `folded` ones are broken into lines."""
    filled = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in filled:
        drawn.add_column(column.upper().replace("_", " "), no_wrap=column not in folded, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(shown.plain("" if row.get(column) is None else row[column])) for column in filled))
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    Console(highlight=False, width=width).print(drawn)
