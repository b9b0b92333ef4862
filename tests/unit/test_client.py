"""The connection to the engine, over a real socket: a server there answers as LXD does."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from labshell.engine import client
from labshell.engine.client import Engine
from labshell.engine.errors import Missing, OperationFailed, TimedOut, Unreachable
from labshell.engine.inside import Entry, Inside
from labshell.errors import UsageError

# As Go's HTTP server writes them, however the program spells them.
HEADERS = {"X-Lxd-Type": "file", "X-Lxd-Uid": "1000", "X-Lxd-Gid": "995"}
FILE = b"ssh-ed25519 AAAA"
INSTANCE = {"config": {}, "devices": {}, "expanded_devices": {"root": {}}, "architecture": "x86_64",
            "ephemeral": False, "profiles": [], "description": ""}  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """Answers a few of LXD's requests; `asked` is what came."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    hangs: threading.Event
    outdated: list[int]  # HTTP 412 so often

    def address_string(self) -> str:
        return ""

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "ETag": "1", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.removeprefix("/1.0").partition("?")[0].rstrip("/")
        if "files" in path:
            self.answer(FILE, headers=HEADERS)
        elif path == "/operations/failing/wait":
            self.answer({"type": "sync", "metadata": {"status_code": 400, "err": "no space left on device"}})
        elif path == "/instances/hangs":
            self.hangs.wait(10)
            self.close_connection = True
        elif path == "/instances/broken":
            self.close_connection = True
        elif path == "/instances/nobody":
            self.answer({"type": "error", "error": "not found"}, 404)
        elif self.command == "PUT" and self.outdated[0]:
            self.outdated[0] -= 1
            self.answer({"type": "error", "error": "ETag does not match"}, 412)
        elif self.command == "POST":
            self.answer({"type": "async", "operation": "/1.0/operations/failing"}, 202)
        elif self.command == "DELETE":
            self.answer({"type": "error", "error": "Instance is running"}, 400)
        elif path == "/storage-pools":
            self.answer({"type": "sync", "metadata": ["/1.0/storage-pools/default", "/1.0/storage-pools/big"]})
        elif path == "/networks/br/leases":
            self.answer({"type": "sync", "metadata": None})
        else:
            self.answer({"type": "sync", "metadata": {**INSTANCE, "auth": "trusted"}})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    Server.asked, Server.hangs, Server.outdated = [], threading.Event(), [0]
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "socket"), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Engine(str(tmp_path / "socket"))
        Server.hangs.set()
        server.shutdown()


def test_a_file_is_described_whatever_the_case_of_the_headers(engine: Engine, tmp_path: Path) -> None:
    inside = Inside(engine, tmp_path)
    assert inside.entry("alice", "/home/alice") == Entry("file", 1000, 995)
    assert inside.read_file("alice", "/home/alice/.ssh/authorized_keys", 11) == FILE[:11]
    assert inside.list_folder("alice", "/home/alice") == []
    assert "HEAD /1.0/instances/alice/files?path=%2Fhome%2Falice" in Server.asked


def test_lists_are_names_or_nothing(engine: Engine) -> None:
    assert engine.names("storage-pools") == ["default", "big"]
    assert engine.read_all("networks", "br", "leases") == []


@pytest.mark.parametrize("name", ["../alice", "a/b", "", "a?b", "a b"])
def test_what_is_no_name_is_refused_before_anything_is_asked(engine: Engine, name: str) -> None:
    with pytest.raises(UsageError):
        engine.read("instances", name)
    assert Server.asked == []


def test_each_way_to_fail_has_its_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Missing):
        engine.read("instances", "nobody")
    with pytest.raises(OperationFailed, match="Instance is running"):
        engine.delete("instances", "alice")
    with pytest.raises(OperationFailed, match="no space left on device"):
        engine.post("instances", body={"name": "alice"})
    with pytest.raises(Unreachable):
        engine.read("instances", "broken")
    monkeypatch.setattr(client, "CALL_SECONDS", 0.2)
    with pytest.raises(TimedOut):
        Engine(engine.socket).read("instances", "hangs")


@pytest.mark.parametrize(("times", "puts"), [(0, 1), (2, 3)])
def test_what_somebody_else_changed_meanwhile_is_read_again(engine: Engine, times: int, puts: int) -> None:
    Server.outdated = [times]
    engine.rewrite("alice", lambda config, devices, root: config.update({"limits.cpu": "8"}))
    assert len([line for line in Server.asked if line.startswith("PUT")]) == puts
