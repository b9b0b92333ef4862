"""The administrator's commands that work in their own process and not in the daemon.

Making templates needs more power than the daemon has, enter needs this very terminal, and doctor has to work when
the daemon does not. They are loaded when they are used: the engine's library takes longer to load than most of the
other commands take.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict

from labshell import shown
from labshell.admin.answers import show_json, table
from labshell.admin.options import Options
from labshell.config import load
from labshell.doctor.host import HostDoctor
from labshell.engine import invocation, templates
from labshell.engine.programs import become
from labshell.engine.recipes import Recipe
from labshell.errors import UsageError
from labshell.model.names import checked_template, existing_name
from labshell.operations.lab import build
from labshell.operations.trial import GOOD, Outcome, Trial


def enter(options: Options) -> None:
    """Become the engine's client program, with a shell or a command of root's in the container."""
    name = existing_name(options.name)
    containers = build(load()).containers
    container = containers.get(name)
    if container is None or not container.is_in_use:
        raise UsageError("container-missing", "There is no container {name}.", name=name)
    command = invocation.Program(" ".join(options.command) or None, as_root=True)
    become(name, invocation.command_inside(name, command))


def template_build(options: Options) -> None:
    lab = build(load())
    name = options.name or lab.config.template
    if options.rootfs and (options.release or options.extras or options.minimal):
        raise UsageError(
            "rootfs-options-conflict",
            "--rootfs is used as it is: --release, --with and --minimal are for a new root file system.",
        )
    recipe = Recipe(options.release, tuple(options.extras), options.minimal)
    _follow(templates.build(lab.engine, lab.containers, name, options.rootfs, recipe), name, options)


def template_publish(options: Options) -> None:
    containers = build(load()).containers
    name = checked_template(options.name)
    _follow(templates.publish(containers, options.container, name), name, options)


def template_update(options: Options) -> None:
    lab = build(load())
    name = options.name or lab.config.template
    _follow(templates.update(lab.containers, name, options.command), name, options)


def template_list(options: Options) -> None:
    lab = build(load())
    found = templates.listing(lab.containers, lab.config.template)
    if options.json:
        show_json(found)
    elif found:
        table(found, ["template", "state", "used"])
    else:
        print("There is no template yet; make one with: labshell-admin template build")


def _follow(steps: Iterator[str], name: str, options: Options) -> None:
    """Do the steps. Before the first one everything is checked and nothing changed, so a dry run ends there."""
    if options.dry_run:
        print(f"{shown.plain(next(steps))} …\nNothing was changed.")
        return
    for step in steps:
        print(f"{shown.plain(step)} …", flush=True)  # names from inside may be among it
    print(f"The template {name} is ready.")


def doctor(options: Options) -> None:
    """Print the problems of this host; an error among the findings is exit status 1."""
    if options.try_it:
        _try_host(options)
        return
    findings = list(HostDoctor(build(load())).examine())
    if options.json:
        show_json([asdict(finding) for finding in findings])
    for finding in findings if not options.json else ():
        print(f"{finding.severity:8} {finding.id:20} {shown.plain(finding.finding)}")
        print(f"{'':29} {shown.plain(finding.remedy)}")
    if not findings and not options.json:
        print("No problems found.")
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


def _try_host(options: Options) -> None:
    """Make a container, check it from inside, and remove it again."""
    outcomes: list[Outcome] = []

    def begin(step: str) -> None:
        if not options.json:
            print(f"{shown.plain(step):58} ", end="", flush=True)

    def end(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if not options.json:
            result = "" if outcome.result == GOOD else f"  {outcome.result}"
            print(f"{outcome.seconds:6.1f} s{result}")
            if outcome.detail:
                print(f"    {shown.plain(outcome.detail)}")

    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C does: what was made is removed
        signal.signal(number, signal.default_int_handler)
    trial = Trial(build(load()), begin, end)
    trial.check()
    is_good = trial.run()
    if options.json:
        show_json({"is_good": is_good, "steps": [asdict(outcome) for outcome in outcomes]})
    else:
        print("A user's container works on this host." if is_good else "A user's container does not work here.")
    if not is_good:
        sys.exit(1)
