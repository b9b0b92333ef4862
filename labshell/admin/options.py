"""What the options of several commands mean: settings, keys from files, a yes before something is lost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from labshell import texts
from labshell.errors import UsageError
from labshell.model.settings import PROFILE, SETTINGS

Options = argparse.Namespace


def settings_of(options: Options) -> dict[str, str]:
    """The settings that were given as options, by their names."""
    given = {name: getattr(options, name.replace("-", "_"), None) for name in (*SETTINGS, PROFILE)}
    if options.mount:
        given["mounts"] = ",".join(options.mount)
    return {name: text for name, text in given.items() if text is not None}


def key_text(path: str) -> str:
    """The public key in a file, or on standard input for "-". What is in it is for the daemon to judge."""
    try:
        return texts.decoded(sys.stdin.buffer.read(1 << 16) if path == "-" else Path(path).read_bytes()[: 1 << 16])
    except OSError as error:
        raise UsageError("file-unreadable", "{path} cannot be read: {why}.", path=path, why=error.strerror) from None


def confirm(options: Options) -> None:
    """UsageError if the user of a terminal does not type the name; nobody is asked where JSON is wanted."""
    name = options.name
    question = f"This removes {name} with everything in the container. Type the name to go on: "
    if options.json or not sys.stdin.isatty():
        raise UsageError("removal-unconfirmed", "Without a terminal, say --yes to remove {name}.", name=name)
    try:
        answer = input(question)
    except EOFError:  # Ctrl-D
        answer = ""
    if answer.strip() != name:
        raise UsageError("removal-declined", "Nothing was removed.")
