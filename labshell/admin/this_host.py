"""The commands about this host that the daemon answers: reconcile, log."""

from __future__ import annotations

from labshell import shown
from labshell.admin.answers import call, show_json, table
from labshell.admin.options import Options


def reconcile(options: Options) -> None:
    change = call("Reconcile", {"plan": options.plan}, options)
    if options.json:
        show_json(change)
        return
    words = ("would be removed", "would be added") if options.plan else ("removed", "added")
    for key, word in zip(("remove", "add"), words, strict=True):
        for rule in change.get(key, []):
            print(f"{word}: port {rule['port']} -> {shown.plain(rule['to'])} ({shown.plain(rule['user'])})")
    if not any(change.values()):
        print("Firewall rules are up to date.")


def show_log(options: Options) -> None:
    changes = call("Log", {"count": options.count, "only_errors": options.errors}, options).get("changes", [])
    if options.json:
        show_json(changes)
        return
    known = ("time", "who", "verb", "subject", "result")
    rows = []
    for change in changes:
        given = ", ".join(f"{name} {text}" for name, text in change.items() if name not in known)
        moment = {"time": shown.moment(change["time"])} if change.get("time") else {}
        rows.append({**{name: change.get(name, "") for name in known}, "given": given, **moment})
    table(rows, ["time", "who", "verb", "subject", "given", "result"], folded=("given", "result"))
