"""The commands about containers: start, stop, idle, drain, undrain."""

from __future__ import annotations

from labshell import shown
from labshell.admin.answers import call, change, show_json, table
from labshell.admin.options import Options
from labshell.errors import LabshellError
from labshell.operations import plans
from labshell.wire.admin import ContainerState, Drained, IdleContainer, Undrained


def start(options: Options) -> None:
    parameters = {"name": options.name, "dry_run": options.dry_run}
    change("StartContainer", parameters, options, _state)


def stop(options: Options) -> None:
    parameters = {"name": options.name, "force": options.force, "dry_run": options.dry_run}
    change("StopContainer", parameters, options, _state)


def _state(now: ContainerState) -> str:
    return f"{now['name']} is {now['state']}."


def idle(options: Options) -> None:
    found: list[IdleContainer] = call("Idle", {"stop": options.stop}, options)
    if options.json:
        show_json(found)
        return
    rows = [
        {
            "user": row["user"],
            "idle_since": shown.moment(row["idle_since"]) if row["idle_since"] else "not measured yet",
            "stops_at": shown.moment(row["stops_at"]) if row["stops_at"] else None,
            "held_until": shown.moment(row["held_until"]) if row["held_until"] else None,
            "held_for": row["held_for"],
            "was_stopped": "stopped" if row.get("was_stopped") else "",
        }
        for row in found
    ]
    columns = ["user", "idle_since", "stops_at", "held_until", "held_for", *(["was_stopped"] if options.stop else [])]
    table(rows, columns, folded=("held_for",))
    if options.stop and not any(row["was_stopped"] for row in rows):
        print("No container has been idle for long enough.")


def drain(options: Options) -> None:
    parameters = {
        "message": options.message,
        "stop": options.stop,
        "snapshot": options.snapshot,
        "plan": options.plan,
    }
    result: Drained = call("Drain", parameters, options)
    if options.json:
        show_json(result)
    else:
        _show_drained(result, options)
    if result["failed"]:
        raise LabshellError("containers-not-stopped", "{count} of {all} containers were not stopped.",
                            count=len(result["failed"]), all=len(result["containers"]))  # fmt: skip


def _show_drained(result: Drained, options: Options) -> None:
    rows = [
        {
            **row,
            "memory": shown.size(row["memory"]),
            "gpus": row["gpus"].replace("none", ""),
            "started": shown.moment(row["started"]) if row["started"] else "",
        }
        for row in result["containers"]
    ]
    words = "would be touched" if options.plan else "were running" if options.stop else "still run"
    print(f"{len(rows)} containers {words}.")
    if rows:
        table(rows, ["name", "kind", "started", "processes", "memory", "gpus", "held_for"])
    for item in result["failed"]:
        print(f"{shown.plain(item['name'])} was not stopped: {shown.plain(item['why'])}")
    if result.get("is_ended_early"):
        print(f"undrain ended it: {len(result['stopped'])} of {len(rows)} were stopped.")
    elif not options.plan:
        print("New starts are disabled until: labshell-admin undrain")


def undrain(options: Options) -> None:
    result: Undrained = call("Undrain", {"start": options.start}, options)
    if options.json:
        show_json(result)
    else:
        _show_undrained(result)
    if result["failed"]:
        raise LabshellError(
            "containers-not-started", "{count} containers were not started.", count=len(result["failed"])
        )


def _show_undrained(result: Undrained) -> None:
    print("Maintenance mode is off.")
    if result["started"]:
        print(f"{plans.counted(len(result['started']), 'container')} started.")
    for item in result["failed"]:
        print(f"{shown.plain(item['name'])} was not started: {shown.plain(item['why'])}")
    if result["stopped"] and not result["failed"]:
        count = plans.counted(len(result["stopped"]), "container")
        print(f"{count} that drain has stopped start when they are used, or with: labshell-admin undrain --start")
