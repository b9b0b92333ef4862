"""labshell-admin import: a class of people from a CSV file, several at once, going on after a bad row."""

from __future__ import annotations

import argparse
import csv
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from labshell import commands, shown
from labshell.config import load
from labshell.errors import LabshellError, UsageError
from labshell.settings import PROFILE, SETTINGS

NEEDED = ("name", "key")
COLUMNS = (*NEEDED, "template", "port", PROFILE, *SETTINGS)


@dataclass(frozen=True)
class Row:
    """One person as the file has them; `number` is the line."""

    number: int
    values: dict[str, str]

    @property
    def name(self) -> str:
        return self.values["name"]


@dataclass(frozen=True)
class Outcome:
    """What became of a row: "added", "there already", "possible" or the sentence of an error."""

    row: Row
    result: str
    has_failed: bool = False


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header; UsageError if it is none, or has a column that is no setting."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            unknown = [column for column in columns if column not in COLUMNS]
            missing = [column for column in NEEDED if column not in columns]
            if unknown or missing:
                raise UsageError("{path}: {what} column {columns}; there is: {known}", path=path,
                                 what="no such" if unknown else "there is no", columns=", ".join(unknown or missing),
                                 known=", ".join(COLUMNS))  # fmt: skip
            reader.fieldnames = columns
            return [_row(path, reader.line_num, values) for values in reader if any(values.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("{path} cannot be read as CSV: {why}.", path=path, why=error) from error


def _row(path: Path, number: int, values: dict[str, Any]) -> Row:
    if None in values:
        raise UsageError("{path}, line {number} has more fields than the first line.", path=path, number=number)
    return Row(number, {name: (text or "").strip() for name, text in values.items()})


def import_users(options: argparse.Namespace) -> None:
    """Add everybody in a file; whoever is there already stays as they are."""
    rows = read_rows(options.file)
    began = time.monotonic()
    outcomes = _add_all(rows, options)
    failed = [outcome for outcome in outcomes if outcome.has_failed]
    if options.json:
        found = [{"line": item.row.number, "name": item.row.name, "result": item.result} for item in outcomes]
        commands.show_json(found)
    else:
        _report(outcomes, failed, time.monotonic() - began)
    if failed:
        raise LabshellError("{count} of {all} rows failed; correct them and run import again.",
                            count=len(failed), all=len(rows))  # fmt: skip


def _add_all(rows: list[Row], options: argparse.Namespace) -> list[Outcome]:
    """As many at once as containers may start at once; the outcomes in the file's order."""
    console = Console(stderr=True, highlight=False)
    outcomes = []
    users = commands.ask("List", {}, _say_nothing).get("users", [])
    whole = {user["user"] for user in users if not user["problem"]}
    with Progress(console=console, disable=options.json or not console.is_terminal) as progress:
        task = progress.add_task("Adding people", total=len(rows))
        with ThreadPoolExecutor(load().parallel_starts) as pool:
            names = [row.name for row in rows]
            waiting = []
            for place, row in enumerate(rows):
                if row.name in names[:place]:
                    outcomes.append(Outcome(row, f"{row.name} is in the file twice.", has_failed=True))
                elif row.name in whole:  # with keys and settings of today, whatever the file says
                    outcomes.append(Outcome(row, "there already"))
                else:
                    waiting.append(pool.submit(_add, row, options))
            progress.advance(task, len(outcomes))
            try:
                for done in as_completed(waiting):
                    outcomes.append(done.result())
                    progress.advance(task)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    return sorted(outcomes, key=lambda outcome: outcome.row.number)


def _add(row: Row, options: argparse.Namespace) -> Outcome:
    try:
        result = commands.ask("AddUser", _parameters(row, options), _say_nothing)
    except LabshellError as error:
        return Outcome(row, str(error), has_failed=True)
    if options.dry_run:
        return Outcome(row, "possible")
    return Outcome(row, "there already" if result["was_there"] else "added")


def _parameters(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    values = row.values
    port = values.get("port", "")
    if port and not (port.isascii() and port.isdigit()):
        raise UsageError("{port} is not a port number.", port=repr(port)[:40])
    return {
        "name": row.name,
        "keys": [_key(values["key"], options.file.parent)],
        "template": values.get("template") or None,
        "port": int(port) if port else None,
        "settings": {name: values[name] for name in (PROFILE, *SETTINGS) if values.get(name)},
        "password": False,
        "dry_run": options.dry_run,
    }


def _key(text: str, folder: Path) -> str:
    """The key itself, or what is in the file of that name beside the table."""
    return text if " " in text else commands.key_text(str(folder / text))


def _report(outcomes: list[Outcome], failed: list[Outcome], seconds: float) -> None:
    for outcome in failed:
        print(f"line {outcome.row.number}, {shown.plain(outcome.row.name)}: {shown.plain(outcome.result)}")
    counts = [
        f"{len([item for item in outcomes if item.result == result])} {result}"
        for result in ("added", "there already", "possible")
        if any(item.result == result for item in outcomes)
    ]
    print(", ".join([*counts, f"{len(failed)} failed"]) + f", in {seconds:.0f} s.")


def _say_nothing(_: str) -> None:
    """The progress bar says it."""
