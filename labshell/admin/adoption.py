"""The commands that take over containers made by hand: adopt, import-host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labshell.admin.answers import call, change, show_json, table
from labshell.admin.options import Options, key_text
from labshell.errors import LabshellError
from labshell.wire.admin import AdoptionCandidate


def adopt(options: Options) -> None:
    parameters = {"name": options.name, "keys": [key_text(path) for path in options.key], "dry_run": options.dry_run}
    text = f"{options.name} adopted; see: labshell-admin show {options.name}"
    change("Adopt", parameters, options, lambda _: text)


def import_host(options: Options) -> None:
    """Everything that was made by hand: shown with --plan, else taken over one by one."""
    found: list[AdoptionCandidate] = call("AdoptionPlan", {}, options)
    for row in found:
        if row["returning"] and not options.returning:  # somebody may have deleted the account to keep them out
            row["problem"] = "its user's account is gone; --returning brings it back"
    outcomes, failed = [], 0
    for row in found if not options.plan else ():
        if row["problem"]:
            outcomes.append({**row, "result": row["problem"]})
            continue
        try:
            call("Adopt", {"name": row["name"], "keys": [], "dry_run": False}, options)
            outcomes.append({**row, "result": "taken over"})
        except LabshellError as error:
            failed += 1
            outcomes.append({**row, "result": str(error)})
    rows: Sequence[Mapping[str, Any]] = outcomes or found
    if options.json:
        show_json(rows)
    elif rows:
        shown_rows = [{**row, "other_ports": " ".join(row["other_ports"])} for row in rows]
        columns = ["name", "state", "address", "port", "other_ports", "result" if outcomes else "problem"]
        table(shown_rows, columns, folded=("problem", "result"))
    else:
        print("Every container is labshell's already.")
    if failed:
        raise LabshellError(
            "adoption-incomplete", "{count} of {all} were not taken over.", count=failed, all=len(outcomes)
        )
