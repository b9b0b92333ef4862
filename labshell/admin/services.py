"""The commands about services: add, remove, list."""

from __future__ import annotations

from labshell.admin.answers import call, change, show_json, table
from labshell.admin.options import Options, confirm, settings_of
from labshell.wire.admin import AddedService, Service


def add_service(options: Options) -> None:
    parameters = {
        "name": options.name,
        "forwards": options.forward,
        "template": options.template,
        "settings": settings_of(options),
        "autostart": options.autostart,
        "dry_run": options.dry_run,
    }

    def words(added: AddedService) -> str:
        name = added["service"]["service"]
        return f"{name} runs: lxc exec {name} -- bash"

    change("AddService", parameters, options, words)


def remove_service(options: Options) -> None:
    if not options.yes and not options.dry_run:
        confirm(options)
    parameters = {"name": options.name, "dry_run": options.dry_run}
    change("RemoveService", parameters, options, lambda _: f"{options.name} is removed.")


def list_services(options: Options) -> None:
    services: list[Service] = call("ListServices", {}, options)
    if options.json:
        show_json(services)
    elif services:
        rows = [
            {**row, "forwards": " ".join(row["forwards"]), "autostart": "yes" if row["autostart"] else ""}
            for row in services
        ]
        table(rows, ["service", "state", "address", "forwards", "autostart"])
    else:
        print("There are no services; add one with: labshell-admin add-service NAME --forward 80:80")
