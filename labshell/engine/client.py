"""The connection to the container engine, through pylxd: who it is and how long it may take.

pylxd's errors are strings and its calls have no time limit, so: every call has one, operations are started
without waiting and then waited for in steps, and every failure becomes an EngineError. Nothing of pylxd's leaves
this module: what is asked for comes as the engine's JSON, and `where` is a path of the engine's API, part by part.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

os.environ.setdefault("PYLXD_WARNINGS", "none")  # read by pylxd at import: unknown attributes are no news

import pylxd
import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from labshell.engine.errors import (
    CHANGE,
    Missing,
    OperationFailed,
    TimedOut,
    Unreachable,
    translate_errors,
)
from labshell.errors import StillPending, UsageError
from labshell.model.names import INSTANCE

SOCKETS = ("/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket")
CALL_SECONDS = 15
COPY_SECONDS = 900
WAIT_STEP_SECONDS = 5
REWRITE_ATTEMPTS = 5
CHUNK_BYTES = 1 << 20
PRECONDITION_FAILED = 412  # HTTP: what was to be changed is not what was read

Record = dict[str, Any]  # an object of the engine's JSON
# What changes an instance: its config, its own devices, its root device.
Change = Callable[[dict[str, str], dict[str, Any], dict[str, str]], None]


@dataclass(frozen=True)
class About:
    """Which engine it is: "lxd" or "incus", and its version."""

    name: str
    version: str


class Content(NamedTuple):
    """A file as the engine gives it, with what it says of it."""

    headers: Mapping[str, str]
    body: bytes


class Engine:
    """One engine, reached by its Unix socket; the first of the known places if none is given."""

    def __init__(self, socket: str = "") -> None:
        self.socket = socket
        self._lock = threading.Lock()
        self._connected: Any = None

    @property
    def path(self) -> Path:
        """The socket: the configured one, or the one that is there."""
        usual = map(Path, SOCKETS)
        return Path(self.socket) if self.socket else next(filter(Path.exists, usual), Path(SOCKETS[0]))

    def about(self) -> About:
        with translate_errors("", "be read"):
            environment = self.read()["environment"]
        return About(environment["server"], environment["server_version"])

    # Reading -------------------------------------------------------------------------------------------

    def read(self, *where: str, **params: str) -> Record:
        """An object of the engine's; Missing if there is none."""
        return dict(self._metadata(where, params) or {})

    def read_all(self, *where: str, **params: str) -> list[Record]:
        """The objects in a list of the engine's."""
        return list(self._metadata(where, params) or [])

    def names(self, *where: str) -> list[str]:
        """The names in a list of the engine's, which are URLs in most."""
        return [url.rpartition("/")[2] for url in self._metadata(where, {}) or []]

    def _metadata(self, where: tuple[str, ...], params: Mapping[str, str]) -> Any:
        with _own_errors():
            return self._node(*where).get(params=params).json()["metadata"]

    def headers(self, *where: str, **params: str) -> Mapping[str, str]:
        """What the engine says of a file, without opening it: HTTP headers, their names in lower case."""
        with _own_errors():
            node = self._node(*where)
            answer = node.session.head(node._api_endpoint, params=params, timeout=CALL_SECONDS)
            return _lower(answer.headers)

    def content(self, *where: str, most: int | None = None, **params: str) -> Content:
        """A file, or its first `most` bytes."""
        with _own_errors(), self._node(*where).get(params=params, is_api=False, stream=True) as answer:
            return Content(_lower(answer.headers), answer.content if most is None else answer.raw.read(most))

    def chunks(self, *where: str) -> Generator[bytes]:
        """A large file, part by part."""
        with _own_errors(), self._node(*where).get(stream=True, timeout=COPY_SECONDS) as answer:
            yield from answer.iter_content(CHUNK_BYTES)

    # Changing ------------------------------------------------------------------------------------------

    def post(self, *where: str, body: Record, seconds: int = COPY_SECONDS) -> Record:
        """Make something, or rename it, and wait until that is done."""
        with _own_errors():
            return self._finish(self._node(*where).post(json=body), seconds)

    def put(self, *where: str, body: Record, seconds: int = COPY_SECONDS) -> None:
        """Replace something, or change its state, and wait until that is done."""
        with _own_errors():
            self._finish(self._node(*where).put(json=body), seconds)

    def delete(self, *where: str, **params: str) -> None:
        """Delete something and wait until that is done; Missing if there is none."""
        with _own_errors():
            self._finish(self._node(*where).delete(params=params), COPY_SECONDS)

    def write(self, *where: str, content: bytes = b"", headers: Mapping[str, str], **params: str) -> None:
        """Write a file."""
        with _own_errors():
            self._node(*where).post(params=params, data=content, headers=headers)

    def upload(
        self,
        *where: str,
        file: BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        parts: Mapping[str, tuple[str, BinaryIO, str]] | None = None,
        seconds: int = COPY_SECONDS,
    ) -> Record:
        """Send a large file, or several as `parts`, and wait until the engine has made of it what it is for."""
        with _own_errors():
            node = _node(self._new_client(COPY_SECONDS).api, where)
            return self._finish(node.post(data=file, headers=headers, files=parts), seconds)

    def patch(self, name: str, config: Mapping[str, str]) -> None:
        """Set keys of an instance's config and leave all others as they are."""
        with _own_errors():
            self._finish(self._node("instances", name).patch(json={"config": dict(config)}), CALL_SECONDS)

    def rewrite(self, name: str, change: Change) -> None:
        """Change an instance's config and devices as a whole: a patch can take no device away.

        `change` gets config, the instance's own devices and its root device, wherever that comes from. What
        somebody else changed meanwhile is read again.
        """
        with translate_errors(name, CHANGE), _own_errors():
            for attempt in range(REWRITE_ATTEMPTS):
                answer = self._node("instances", name).get()
                found = answer.json()["metadata"]
                config, devices = found["config"], found["devices"]
                change(config, devices, dict(found["expanded_devices"]["root"]))
                body = {key: found[key] for key in ("architecture", "ephemeral", "profiles", "description")}
                body |= {"config": {key: value for key, value in config.items() if value}, "devices": devices}
                try:
                    unless_changed = {"If-Match": answer.headers["ETag"]}
                    self._finish(self._node("instances", name).put(json=body, headers=unless_changed), CALL_SECONDS)
                except LXDAPIException as error:
                    if error.response.status_code != PRECONDITION_FAILED or attempt == REWRITE_ATTEMPTS - 1:
                        raise
                else:
                    return

    # The connection ------------------------------------------------------------------------------------

    def _node(self, *where: str) -> Any:
        _check(where)
        with self._lock:
            if self._connected is None:
                self._connected = self._new_client(CALL_SECONDS)
            return _node(self._connected.api, where)

    def _new_client(self, timeout_seconds: int) -> Any:
        client = pylxd.Client(endpoint="http+unix://" + quote(str(self.path), safe=""), timeout=timeout_seconds)
        client.api.session.trust_env = False  # no proxy and no .netrc, which it would look for each time
        return client

    def _finish(self, answer: Any, timeout_seconds: int) -> Record:
        """Wait for the background operation that an answer speaks of, if it does; what the operation tells."""
        told = answer.json()
        if told.get("type") != "async":
            return {}
        return self._wait(told["operation"].rpartition("/")[2].partition("?")[0], timeout_seconds)

    def _wait(self, operation: str, timeout_seconds: int) -> dict[str, Any]:
        """Wait for a background operation, in steps short enough for the client's own time limit.

        The operation goes on in the engine after StillPending: whoever catches that reads the state again.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            step = max(1, min(WAIT_STEP_SECONDS, int(deadline - time.monotonic())))
            waiting = self._node("operations", operation, "wait")
            try:
                metadata = waiting.get(params={"timeout": step}).json()["metadata"]
            except LXDAPIException as error:
                if "context deadline exceeded" not in str(error):  # how Incus says "not yet"
                    raise
                metadata = {"status_code": 103}
            if metadata["status_code"] >= 400:
                raise OperationFailed(metadata.get("err", ""))
            if metadata["status_code"] == 200:
                return metadata.get("metadata") or {}
            if time.monotonic() > deadline:
                raise StillPending(
                    "engine-timeout",
                    "The container engine has not finished after {seconds} seconds; look again later.",
                    seconds=timeout_seconds,
                )


def _check(where: tuple[str, ...]) -> None:
    """Refuse what is no name of an instance: it becomes part of a URL, which pylxd does not quote."""
    if where[:1] == ("instances",) and len(where) > 1 and not INSTANCE.fullmatch(where[1]):
        raise UsageError("container-name-invalid", "{name} is not the name of a container.", name=repr(where[1])[:80])


def _node(api: Any, where: tuple[str, ...]) -> Any:
    """pylxd's own for a place in the engine's API."""
    for part in where:
        api = api[part]
    return api


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Turn what pylxd and requests raise into errors of our own."""
    try:
        yield
    except NotFound as error:
        raise Missing(str(error)) from error
    except LXDAPIException as error:
        raise OperationFailed(str(error)) from error
    except requests.Timeout as error:
        raise TimedOut(str(error)) from error
    except (ClientConnectionFailed, requests.RequestException) as error:
        raise Unreachable(str(error)) from error
