"""The commands about this host that the daemon answers: reconcile, log."""

from __future__ import annotations

from labshell import shown
from labshell.admin.answers import call, flat, show_json, table
from labshell.admin.options import Options
from labshell.wire.admin import ChangeEntry, RuleChanges


def reconcile(options: Options) -> None:
    change: RuleChanges = call("Reconcile", {"plan": options.plan}, options)
    if options.json:
        show_json(change)
        return
    words = ("would be removed", "would be added") if options.plan else ("removed", "added")
    for rules, word in zip((change["remove"], change["add"]), words, strict=True):
        for rule in rules:
            print(f"{word}: port {rule['port']} -> {shown.plain(rule['to'])} ({shown.plain(rule['user'])})")
    if not any(change.values()):
        print("Firewall rules are up to date.")


def show_log(options: Options) -> None:
    changes: list[ChangeEntry] = call("Log", {"count": options.count, "only_errors": options.errors}, options)
    if options.json:
        show_json([*map(flat, changes)])
        return
    rows = [
        {
            **change,
            "time": change["time"] and shown.moment(change["time"]),
            "given": ", ".join(f"{name} {text}" for name, text in change["given"].items()),
        }
        for change in changes
    ]
    table(rows, ["time", "who", "verb", "subject", "given", "result"], folded=("given", "result"))
