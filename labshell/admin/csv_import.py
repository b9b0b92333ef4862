"""labshell-admin import: a class of users from a CSV file, several at once, continuing after a bad row."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from labshell import shown
from labshell.admin import class_list
from labshell.admin.answers import ask, show_json
from labshell.admin.class_list import ClassList, Fault, Row
from labshell.admin.options import key_text
from labshell.config import load
from labshell.errors import LabshellError, UsageError
from labshell.host.clock import Clock
from labshell.model import key_files
from labshell.model.keys import PublicKey
from labshell.model.settings import PROFILE, SETTINGS
from labshell.wire.admin import AddedUser, UserRow

CLONING = "Cloning the template"  # add-user's step after the one that gives the ports


@dataclass(frozen=True)
class Outcome:
    """What became of a row: "added", "there already", "possible" or the sentence of an error."""

    row: Row
    result: str
    has_failed: bool = False


def read_list(path: Path) -> ClassList:
    """The table in a file with every fault that can be found without the daemon; UsageError if it is no table."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError("file-unreadable", "{path} cannot be read: {why}.", path=path, why=error.strerror) from error
    found = class_list.read(content, path, Clock().today())
    parsed = [(row, _parsed_key(row, path.parent)) for row in found.rows]
    class_list.compare_keys((row, (key.kind, key.blob)) for row, key in parsed if key is not None)
    class_list.compare_ports(found.rows, load().ports_per_user)
    return found


def _parsed_key(row: Row, folder: Path) -> PublicKey | None:
    """The key of a row, whose place it takes there; None, with the fault added, if it is none."""
    if "key" not in row.values:
        return None
    try:
        row.values["key"] = _key(row.values["key"], folder)
        return key_files.read(row.values["key"])
    except UsageError as error:
        row.faults.append(Fault("key", str(error)))
        return None


def import_users(options: argparse.Namespace) -> None:
    """Add every user in a file; existing users stay as they are."""
    found = read_list(options.file)
    rows = found.rows
    for notice in found.notices if not options.json else ():
        print(shown.plain(notice), file=sys.stderr)
    began = time.monotonic()
    outcomes = _add_all(rows, options)
    failed = [outcome for outcome in outcomes if outcome.has_failed]
    if options.json:
        show_json([_as_json(item) for item in outcomes])
    else:
        _report(outcomes, failed, time.monotonic() - began)
    if failed:
        raise LabshellError("import-incomplete", "{count} of {all} rows failed; correct them and run import again.",
                            count=len(failed), all=len(rows))  # fmt: skip


def _add_all(rows: list[Row], options: argparse.Namespace) -> list[Outcome]:
    """As many at once as containers may start at once; the outcomes in the file's order."""
    console = Console(stderr=True, highlight=False)
    outcomes = []
    users: list[UserRow] = ask("List", {}, _say_nothing)
    whole = {user["user"] for user in users if not user["problem"]}
    with Progress(console=console, disable=options.json or not console.is_terminal) as progress:
        task = progress.add_task("Adding people", total=len(rows))
        with ThreadPoolExecutor(load().parallel_starts) as pool:
            waiting = []
            before = threading.Event()
            before.set()
            for row in rows:
                has_sound_name = not {fault.column for fault in row.faults} & {"", "name"}
                if row.faults and not (row.name in whole and has_sound_name):
                    waiting.append(pool.submit(_look_further, row, options))
                elif row.name in whole:  # with keys and settings of today, whatever the file says
                    outcomes.append(Outcome(row, "there already"))
                else:
                    has_ports = threading.Event()
                    waiting.append(pool.submit(_add, row, options, before, has_ports))
                    before = has_ports
            progress.advance(task, len(outcomes))
            try:
                for done in as_completed(waiting):
                    outcomes.append(done.result())
                    progress.advance(task)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    return sorted(outcomes, key=lambda outcome: outcome.row.number)


def _add(row: Row, options: argparse.Namespace, before: threading.Event, has_ports: threading.Event) -> Outcome:
    """Add the user of a row, once the row `before` it has its ports: they are given in the file's order."""

    def say(text: str) -> None:
        if text == CLONING:
            has_ports.set()

    if not options.dry_run:
        before.wait()
    try:
        result: AddedUser = ask("AddUser", _parameters(row, options), say)
    except LabshellError as error:
        return Outcome(row, str(error), has_failed=True)
    finally:
        has_ports.set()
    if options.dry_run:
        return Outcome(row, "possible")
    return Outcome(row, "there already" if result["was_there"] else "added")


def _look_further(row: Row, options: argparse.Namespace) -> Outcome:
    """The outcome of a row that has faults already: with what the daemon would refuse besides."""
    wrong = {fault.column for fault in row.faults}
    if not wrong & {"", *class_list.NEEDED}:
        try:
            ask("AddUser", {**_parameters(row, options), "dry_run": True}, _say_nothing)
        except LabshellError as error:
            row.faults.append(Fault("", str(error)))
    return Outcome(row, " ".join(map(str, row.faults)), has_failed=True)


def _parameters(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    values = row.values
    return {
        "name": row.name,
        "keys": [values["key"]],
        "template": values.get("template") or None,
        "port": int(values["port"]) if values.get("port") else None,
        "settings": {name: values[name] for name in (PROFILE, *SETTINGS) if values.get(name)},
        "password": False,
        "dry_run": options.dry_run,
    }


def _key(text: str, folder: Path) -> str:
    """The key itself, or what is in the file of that name beside the table."""
    return text if len(text.split()) > 1 else key_text(str(folder / text))


def _report(outcomes: list[Outcome], failed: list[Outcome], seconds: float) -> None:
    for outcome in outcomes:
        for fault in outcome.row.warnings:
            print(_line(outcome.row, f"warning: {fault}"))
    for outcome in failed:
        for sentence in [*map(str, outcome.row.faults)] or [outcome.result]:
            print(_line(outcome.row, sentence))
    counts = [
        f"{len([item for item in outcomes if item.result == result])} {result}"
        for result in ("added", "there already", "possible")
        if any(item.result == result for item in outcomes)
    ]
    print(", ".join([*counts, f"{len(failed)} failed"]) + f", in {seconds:.0f} s.")


def _line(row: Row, sentence: str) -> str:
    return ", ".join(filter(None, [f"line {row.number}", shown.plain(row.name)])) + f": {shown.plain(sentence)}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    faults, warnings = (
        [{"column": item.column or None, "sentence": item.sentence} for item in items]
        for items in (row.faults, row.warnings)
    )
    return {"line": row.number, "name": row.name, "result": outcome.result, "faults": faults, "warnings": warnings}


def _say_nothing(_: str) -> None:
    """The progress bar says it."""
