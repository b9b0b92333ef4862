"""Inside a container: its files and programs, only through the engine's API and never by a path on the host.

Root in there may have planted links, FIFOs and devices wherever we look.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from labshell.engine.client import Engine
from labshell.engine.errors import Missing, retry_while_busy, translate_errors
from labshell.engine.programs import run_inside
from labshell.errors import TryAgain, UsageError
from labshell.model import keys

READ_HOST_KEY = ["head", "-c", "4096", "/etc/ssh/ssh_host_ed25519_key.pub"]
READ_SECONDS = 15
MOST_BYTES = 16 << 20
ASKED = 3
# Its last line tells that everything before it arrived: the exit status.
WHOLE = ["/bin/sh", "-c", '"$@" 2>&1; echo "labshell: $?"', "labshell"]
LAST_LINE = re.compile(r"labshell: ([0-9]{1,3})\n\Z")
CLIENT_SAYS = "Error: "  # or a program inside, which changes nothing


class Entry(NamedTuple):
    """What has a name inside; of a link the link itself. The engine calls a FIFO a file, too."""

    kind: str  # "file", "directory" or "symlink"
    uid: int
    gid: int


OF_ROOT = Entry("file", 0, 0)


class Inside:
    """The files and programs of one engine's containers.

    LXD's server for the files of a container ends when nobody asks it, and fails whoever asks just then.
    """

    def __init__(self, engine: Engine, state: Path) -> None:
        """`state` is the folder of root's where the engine's client program has its settings."""
        self._engine = engine
        self._state = state

    @retry_while_busy
    def put_file(self, name: str, path: str, content: bytes, mode: int = 0o644, owner: Entry = OF_ROOT) -> None:
        """A file of `owner`'s. What is there is deleted first: the engine would keep its mode, and follow a link."""
        self.delete_file(name, path)
        with translate_errors(name, "take a file"):
            headers = _about("file", mode, owner)
            self._engine.write("instances", name, "files", content=content, headers=headers, path=path)

    @retry_while_busy
    def put_folder(self, name: str, path: str, mode: int, owner: Entry) -> None:
        """An empty folder of `owner`'s in the place of what may be there and is no folder."""
        self.delete_file(name, path)
        with translate_errors(name, "take a file"):
            self._engine.write("instances", name, "files", headers=_about("directory", mode, owner), path=path)

    @retry_while_busy
    def entry(self, name: str, path: str) -> Entry | None:
        """What is at `path`, without opening it; None if there is nothing."""
        with translate_errors(name, "be read"):
            about = self._engine.headers("instances", name, "files", path=path)
            if not about.get("x-lxd-type"):
                return None
            return Entry(about["x-lxd-type"], int(about["x-lxd-uid"]), int(about["x-lxd-gid"]))

    @retry_while_busy
    def delete_file(self, name: str, path: str) -> None:
        with translate_errors(name, "lose a file"), contextlib.suppress(Missing):
            self._engine.delete("instances", name, "files", path=path)

    @retry_while_busy
    def read_file(self, name: str, path: str, most: int) -> bytes | None:
        """At most `most` bytes of a file inside; None if there is no file of that name.

        For what no researcher has written: the engine waits for ever at a FIFO, and cannot tell it from a file.
        """
        with translate_errors(name, "be read"):
            try:
                found = self._engine.content("instances", name, "files", most=most, path=path)
            except Missing:
                return None
            return found.body if found.headers.get("x-lxd-type") == "file" else None

    def host_key(self, name: str) -> str:
        """The public Ed25519 host key in a running container ("ssh-ed25519 AAAA..."); "" if there is none.

        By a program inside and not by the engine, which would wait for ever at a FIFO that the owner has put there.
        """
        status, text = self.ask(name, READ_HOST_KEY, timeout_seconds=READ_SECONDS)
        try:
            key = keys.parse(text if status == 0 else "")
        except UsageError:
            return ""
        return f"{key.kind} {key.blob}"

    def logind_failed(self, name: str) -> bool:
        """Whether systemd-logind of a running container has failed, so that each login waits for it."""
        _, text = self.ask(name, ["systemctl", "is-failed", "systemd-logind"], timeout_seconds=READ_SECONDS)
        return text.strip() == "failed"

    @retry_while_busy
    def list_folder(self, name: str, path: str) -> list[str]:
        """The names in a folder inside the container; empty if there is no such folder."""
        with translate_errors(name, "be read"):
            about = self._engine.headers("instances", name, "files", path=path)
            if about.get("x-lxd-type") != "directory":
                return []
            try:
                found = self._engine.content("instances", name, "files", path=path)
            except Missing:
                return []
            try:
                entries = json.loads(found.body)["metadata"]
            except ValueError:
                return []  # a file, where a folder was expected
        return [entry for entry in entries or [] if isinstance(entry, str) and "/" not in entry]

    def run(
        self, name: str, argv: list[str], timeout_seconds: int = 60, most_bytes: int = MOST_BYTES
    ) -> tuple[int, str]:
        """Run a program inside as root; its exit status and the last 64 KiB of what it printed, both streams.

        By the engine's client program. The engine's own recording goes into files on the host, as large as whoever is
        root in the container likes; and the websockets of pylxd's execute() lose output when several run at once.
        One that prints more than `most_bytes` is ended: TryAgain.
        """
        self._check_runs(name)
        program = run_inside(self._engine.socket, self._state, name, argv, terminal=None)
        try:
            status, output = program.output(timeout_seconds, most_bytes)
        except TryAgain:
            self._check_runs(name)
            raise
        if status and output.startswith(CLIENT_SAYS):
            self._check_runs(name)
        return status, output

    def ask(self, name: str, argv: list[str], timeout_seconds: int = 60) -> tuple[int, str]:
        """As `run`, for a program that changes nothing: it runs again if what it printed did not arrive whole.

        On a loaded host LXD 5.0 now and then loses the output of a program that ends at once, and says nothing.
        """
        for _ in range(ASKED):
            status, output = self.run(name, [*WHOLE, *argv], timeout_seconds)
            if match := LAST_LINE.search(output):
                return int(match[1]), output[: match.start()]
        return status, output

    def _check_runs(self, name: str) -> None:
        """What is wrong with the engine or with the container's state, in the engine's own words and ours."""
        with translate_errors(name, "run a command"):
            state = self._engine.read("instances", name)["status"]
        if state != "Running":
            raise TryAgain(
                "container-state-changing", "The container is {state}; try again in a moment.", state=state.lower()
            )


def _about(kind: str, mode: int, owner: Entry) -> dict[str, str]:
    """What the engine is told of something new in the container."""
    return {
        "X-LXD-type": kind,
        "X-LXD-mode": f"0{mode:o}",
        "X-LXD-uid": str(owner.uid),
        "X-LXD-gid": str(owner.gid),
    }
