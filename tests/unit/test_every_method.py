"""Every method of both interfaces, asked as a client asks it: what it answers is what its description says.

The operations are the real ones, over a host of stand-ins. A reply of another type would be a bug with a reference.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import FakeContainers, Instance, lab_of

from labshell.config import Config, Paths
from labshell.daemon import main as daemon
from labshell.daemon.administration import AdminInterface
from labshell.daemon.calls import Call
from labshell.daemon.interfaces import GatewayInterface
from labshell.daemon.pulses import Pulses
from labshell.daemon.service import Service
from labshell.doctor import user as doctor
from labshell.engine.inside_sessions import LIST_SESSIONS
from labshell.engine.proxies import Proxy
from labshell.engine.records import Usage
from labshell.host.gpus import Gpu, GpuProcess
from labshell.model.access import Caller
from labshell.model.container import Container, Hold, OwnForward
from labshell.model.forwards import Forward
from labshell.model.keys import PublicKey, line_on_host
from labshell.operations import lifecycle, set_user, usage, user_ports
from labshell.operations.idle_stop import IdleStop
from labshell.wire import description, protocol

KEY_TEXT = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti alice@laptop"
OTHER_TEXT = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmw7rUBWJBMdSX3Yfu1b5s2O2VUPCPFlRuVYzBBIWlz desk"
KEY = PublicKey(*KEY_TEXT.split())
SESSIONS = f"session 12 \nsession 13 Accepted publickey for alice from 192.0.2.9 port 5 ssh2: ED25519 {KEY.fingerprint}\n"
ROOT, ALICE = Caller(0, "root"), Caller(30000, "alice", frozenset({"labshell"}))
USED = Usage(memory=1 << 30, disk=2 << 30, processes=12, cpu_seconds=5.0, network_bytes=1000)
UNKNOWN = Usage(None, None, None, None)
SETTINGS = {"cpu": "1", "memory": "8GiB"}


class Containers(FakeContainers):
    """The stand-in with more about its containers, for those methods that the tests of crashes do not need."""

    name = "lxdbr0"

    def __init__(self, folder: Path, used: Usage) -> None:
        super().__init__()
        self.proxies = self.backups = self
        self.folder, self.used = folder, used
        self.more: dict[str, dict[str, Any]] = {}
        self.kept_about = ""

    def get(self, name: str) -> Container | None:
        found = super().get(name)
        return found and replace(found, **self.more.get(name, {}))

    def tell(self, name: str, **about: Any) -> None:
        self.more[name] = {**self.more.get(name, {}), **about}

    def all_of(self, user: str) -> list[Container]:
        return [item for item in self.all() if item.owner == user]

    def usage(self, container: Container) -> Usage:
        return self.used

    def all_with_usage(self) -> list[tuple[Container, Usage]]:
        return [(item, self.used) for item in self.all()]

    def usage_of_all(self) -> dict[str, Usage]:
        return {item.name: self.used for item in self.all() if item.state == "Running"}

    def check_template(self, name: str) -> None:
        self.existing(name)

    def of(self, name: str) -> list[Proxy]:
        return [Proxy("ssh", 20070, 22), Proxy("web", 20080, 80)] if name == "eve" else []

    def remove(self, name: str, devices: list[str]) -> None:
        self.change()

    def current(self, name: str) -> str | None:
        return self.existing(name).address

    def believed(self, address: str | None) -> str | None:
        return address

    def set_forwards(self, name: str, forwards: Any) -> None:
        self.tell(name, forwards=tuple(forwards))

    def set_hold(self, name: str, hold: Hold | None) -> None:
        self.tell(name, hold=hold)

    def set_profile(self, name: str, profile: str) -> None:
        self.tell(name, profile=profile)

    def set_service(self, name: str, *, autostart: bool) -> None:
        self.tell(name, is_service=True, owner=None)

    def adopt(self, name: str, uid: int, address: str, host_key: str) -> None:
        found = self.existing(name)
        found.owner, found.uid, found.address, found.is_prepared = name, uid, address, True

    def set_archived(self, name: str, text: str) -> None:
        self.kept_about = text or self.kept_about

    def archived(self, name: str) -> str:
        return self.kept_about

    def export(self, name: str, target: Path) -> None:
        write_archive(target, name)

    def restore(self, name: str, path: Path) -> None:
        self.instances[name] = Instance("", 0, None, is_prepared=True, files={f"/home/{name}/x": b""})

    def give_to(self, name: str, user: str, uid: int, address: str) -> None:
        found = self.existing(name)
        found.owner, found.uid, found.address = user, uid, address

    def put_back(self, name: str, settings: Any) -> None:
        self.change()

    def host_key(self, name: str) -> str:
        return self.existing(name).host_key

    def first_process(self, name: str) -> int:
        return os.getpid()

    def ask(self, name: str, argv: list[str], timeout_seconds: int = 60) -> tuple[int, str]:
        return 0, SESSIONS if LIST_SESSIONS in argv else ""

    def logind_failed(self, name: str) -> bool:
        return False

    def use_of(self, container: Container) -> tuple[int, int]:
        return 1 << 30, 2 << 30


class Accounts:
    """Accounts in memory."""

    def __init__(self) -> None:
        self.uids = {"alice": 30000}
        self.keys = {"alice": [KEY]}

    def uid_of(self, user: str) -> int | None:
        return self.uids.get(user)

    def all(self) -> dict[str, int]:
        return dict(self.uids)

    def keys_of(self, user: str) -> list[PublicKey]:
        return self.keys.get(user, [])

    def set_keys(self, user: str, keys: list[PublicKey]) -> None:
        self.keys[user] = keys

    def ensure(self, user: str, marked: object) -> int:
        return self.uids.setdefault(user, 30000 + len(self.uids))

    def next_uid(self, marked: object) -> int:
        return 30000 + len(self.uids)

    def remove(self, user: str) -> None:
        del self.uids[user]

    give_up = remove

    def is_locked(self, user: str) -> bool:
        return False

    def nothing(self, *_: object) -> None:
        pass

    note_login = lock = unlock = set_expiry = nothing

    def last_login(self, user: str) -> str | None:
        return "2026-11-27T17:58:52Z" if user == "alice" else None

    def last_day(self, user: str) -> datetime.date:
        return datetime.date(2999, 1, 1)

    def door(self, user: str) -> Any:
        return SimpleNamespace(is_home_safe=True)


class Ports:
    """Blocks of ten ports in memory."""

    def __init__(self) -> None:
        self.ports = {"alice": 20000}

    def port_of(self, user: str) -> int | None:
        return self.ports.get(user)

    def block(self, port: int) -> range:
        return range(port, port + 10)

    def next_port(self) -> int:
        return 20010

    def readable_ports(self) -> tuple[dict[str, int], list[str]]:
        return self.ports, ["dan"]

    def busy_beside(self, own: object) -> set[int]:
        return set()

    def ensure(self, user: str, port: int | None = None, *, even_resting: bool = False) -> int:
        return self.ports.setdefault(user, port or 20010)

    def move(self, user: str, port: int) -> None:
        self.ports[user] = port

    def adopt(self, user: str, port: int, own: object) -> None:
        self.ports[user] = port

    def release(self, user: str) -> None:
        self.ports.pop(user, None)

    give_up = release

    def nothing(self, *_: object) -> None:
        pass

    check = check_adopt = check_single = nothing


def write_archive(path: Path, name: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in {"backup/index.yaml": f"name: {name}\n", "backup/container/x": ""}.items():
            about = tarfile.TarInfo(member)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content.encode()))


class Program:
    """A program inside that has ended with 3."""

    def __init__(self) -> None:
        self.descriptors = list(os.pipe())

    def hand_over(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

    end = hand_over

    def wait(self, is_gone: object) -> int:
        return 3


class Host:
    """A host with alice, the service web, and eve's container, which was made by hand."""

    def __init__(self, folder: Path, *, is_known: bool) -> None:
        """`is_known`: alice's container has everything that one can have; else nothing that it need not have."""
        for name in ("run", "state", "archive"):
            (folder / name).mkdir(mode=0o755)
        self.archive = folder / "archive"
        self.containers = Containers(folder, USED if is_known else UNKNOWN)
        self.accounts, ports = Accounts(), Ports()
        found = self.containers.instances
        found["alice"] = Instance("alice", 30000, "10.83.0.2", state="Running", is_prepared=True)
        found["web"] = Instance("", 0, "10.83.0.3", state="Running")
        self.containers.tell("web", is_service=True, uid=None, forwards=(OwnForward(80, 8080),))
        if is_known:
            found["eve"] = Instance("", 0, "10.83.0.4", state="Running")
            found["alice--20261101-120000"] = Instance("alice", 30000, None, is_prepared=True)
            found["alice"].kept = "alice--20261101-120000"
            found["alice"].host_key = KEY_TEXT
            found["alice"].limits.update({"limits.cpu": "8", "limits.memory": "64GiB", "disk": "200GiB"})
            self.containers.tell(
                "alice", forwards=(OwnForward(20001, 8888, "notebook", "192.0.2.0/24", 1 << 40),), gpus="all",
                hold=Hold(9e9, "a long run"), started="2026-11-27T10:00:00Z", template="base", profile="big",
                expires=datetime.date(2999, 1, 1), mounts="/data:/data",
            )  # fmt: skip
            self.containers.snapshots.take("alice", "first")
        else:
            found["alice"].address, found["alice"].state = None, "Stopped"
            self.accounts.keys, ports.ports = {}, {}
        rule = Forward(20000, "alice", "10.83.0.2")
        difference = SimpleNamespace(remove=[rule] * is_known, add=[rule])
        firewall = SimpleNamespace(
            address="10.83.0.1", forward=lambda container: None, forward_user=lambda user: None,
            has_live_rules=lambda *about: True, check_source=lambda source: None, forget=lambda addresses: None,
            plan=lambda: difference, reconcile=lambda: difference, ports_to=lambda address: set(),
            old_port=lambda address: None, packets=lambda user: None,
        )  # fmt: skip
        config = Config(
            paths=Paths(state=folder / "state", run=folder / "run"), archive=str(self.archive), template="template",
            profile={"big": {"memory": "64GiB"}}, idle_stop_days=7 * is_known, hostname="gpu1",
        )  # fmt: skip
        lab = lab_of(config, accounts=self.accounts, containers=self.containers, ports=ports, firewall=firewall)
        if is_known:
            lab.activity.write({"alice": 1_700_000_000.0})
            lab.unfinished.tell("alice", "It was interrupted.")
        self.lab, idle_stop = lab, IdleStop(lab)
        self.callers = {protocol.GATEWAY: ALICE, protocol.ADMIN: ROOT}
        self.services = {
            protocol.GATEWAY: Service(protocol.GATEWAY, GatewayInterface(lab, idle_stop)),
            protocol.ADMIN: Service(protocol.ADMIN, AdminInterface(lab, idle_stop)),
        }

    def ask(self, interface: str, method: str, **parameters: Any) -> dict[str, Any]:
        """The last reply's parameters; no reply is an error, and there is one answer in the end."""
        request = {"method": f"{interface}.{method}", "parameters": parameters, "more": True}
        call = Call(self.callers[interface])
        answers = self.services[interface].answer(json.dumps(request).encode(), call)
        *before, last = (json.loads(reply[:-1]) for reply in answers)
        assert "error" not in last, last
        assert all(reply["continues"] for reply in before)
        assert not last["continues"]
        assert last["parameters"].keys() - {"progress"}
        return dict(last["parameters"])

    def user(self, method: str, **parameters: Any) -> Any:
        (answer,) = self.ask(protocol.GATEWAY, method, **parameters).values()
        return answer

    def admin(self, method: str, **parameters: Any) -> Any:
        return self.ask(protocol.ADMIN, method, **parameters)["result"]


@pytest.fixture(params=["everything known", "nothing known"])
def host(request: pytest.FixtureRequest, tmp_path: Path, doubled: None) -> Host:
    tmp_path.chmod(0o755)
    return Host(tmp_path, is_known=request.param == "everything known")


@pytest.fixture
def whole(tmp_path: Path, doubled: None) -> Host:
    tmp_path.chmod(0o755)
    return Host(tmp_path, is_known=True)


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the operations would ask of this very machine."""
    for module in (lifecycle, user_ports, doctor):
        monkeypatch.setattr(module, "ssh_answers", lambda *_, **__: True)
    descriptor = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(lifecycle, "connect", lambda address: os.dup(descriptor))
    monkeypatch.setattr(lifecycle, "run_inside", lambda *_, **__: Program())
    monkeypatch.setattr(usage, "SAMPLE_SECONDS", 0)
    monkeypatch.setattr(set_user, "refuse_missing_folders", lambda settings: None)
    yield
    os.close(descriptor)


LOOKS = {
    protocol.GATEWAY: ["Status", "Forwards", "Keys", "ReportUsage", "Gpus", "Doctor", "GatewayKeys"],
    protocol.ADMIN: ["ListServices", "AdoptionPlan", "List"],
}


@pytest.mark.parametrize(("interface", "method"), [(name, method) for name in LOOKS for method in LOOKS[name]])
def test_what_only_looks_answers_as_described_whatever_is_known(host: Host, interface: str, method: str) -> None:
    host.ask(interface, method)


@pytest.mark.parametrize("stop", [False, True])
def test_idle_answers_with_rows(whole: Host, *, stop: bool) -> None:
    (row,) = whole.admin("Idle", stop=stop)
    assert (row["user"], row["held_for"], row.get("was_stopped")) == ("alice", "a long run", False if stop else None)


def test_gpus_are_answered_with_their_users(whole: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Gpu(0, "A100", 97, 1 << 30, 80 << 30, 61, (GpuProcess(os.getpid(), 1 << 20),)), Gpu(1, "T4", None, None, None, None)]
    monkeypatch.setattr(usage.gpus, "gpus", lambda: found)
    report = whole.user("Gpus")
    assert report["gpus"][0]["users"] == [{"user": "other", "memory": 1 << 20}]
    assert report["gpus"][1] == {"index": 1, "model": "T4", "users": []}  # what is unknown is left out for users


def test_the_notice_is_answered_once(whole: Host) -> None:
    assert whole.user("Status")["notice"] == {"sentence": "It was interrupted.", "values": {}}
    assert "notice" not in whole.user("Status")


def test_a_connection_is_passed_on_and_the_daemon_keeps_none_of_it(
    whole: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real socket: the descriptor arrives, and ours is closed once the last reply has been sent."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(lifecycle, "connect", lambda address: ours.detach())
    monkeypatch.setattr(daemon, "caller_of", lambda connection: ALICE)
    with daemon.listen(tmp_path / "socket", None) as listener, theirs:
        server = daemon.Server(listener, whole.services[protocol.GATEWAY], daemon.Connections(), Pulses())
        threading.Thread(target=lambda: server._serve(listener.accept()[0]), daemon=True).start()
        *_, reply = protocol.call(str(tmp_path / "socket"), f"{protocol.GATEWAY}.Proxy", {}, 10)
        (descriptor,) = reply["descriptors"]
        theirs.settimeout(10)
        with socket.socket(fileno=descriptor) as passed:
            passed.sendall(b"through")
            assert theirs.recv(100) == b"through"
        assert theirs.recv(100) == b""  # no copy of it is open any more


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("Start", {}),
    ("Stop", {"force": True}),
    ("Restart", {"force": False}),
    ("Proxy", {}),
    ("Enter", {"command": "true", "root": False, "terminal": None, "locale": {"LANG": "C.UTF-8"}}),
    ("Enter", {"root": True, "terminal": {"type": "xterm", "rows": 24, "columns": 80}}),
    ("Hold", {"lasting": "3d", "reason": "a run"}),
    ("Release", {}),
    ("AddForward", {"target": 6006, "name": "board", "lasting": "1h"}),
    ("RemoveForward", {"port": 8888}),
    ("AddKey", {"key": OTHER_TEXT}),
    ("FindKey", {"which": "1"}),
    ("RemoveKey", {"which": "1", "even_the_last": True}),
    ("EndKeySessions", {"fingerprint": KEY.fingerprint}),
    ("Snapshots", {}),
    ("CreateSnapshot", {"name": "second"}),
    ("RestoreSnapshot", {"name": "first"}),
    ("RestoreSnapshot", {"name": "first", "dry_run": True}),
    ("DeleteSnapshot", {"name": "first"}),
    ("Rebuild", {"template": "template", "force": True}),
    ("Rebuild", {"force": True, "dry_run": True}),
    ("UndoRebuild", {"force": True}),
    ("ForgetKept", {}),
]


@pytest.mark.parametrize(("method", "parameters"), CHANGES, ids=[f"{method}-{given}" for method, given in CHANGES])
def test_a_users_method_answers_as_described(whole: Host, method: str, parameters: dict[str, Any]) -> None:
    whole.user(method, **parameters)


def test_the_sessions_of_a_key_are_those_known_and_those_that_may_be_its(whole: Host) -> None:
    assert whole.user("FindKey", which="1")["sessions"] == [
        {"is_known": False}, {"address": "192.0.2.9", "is_known": True},
    ]  # fmt: skip


def new(**about: Any) -> dict[str, Any]:
    return {"name": "bob", "keys": [OTHER_TEXT], "template": None, "port": None, "settings": SETTINGS,
            "password": True, "dry_run": False, **about}  # fmt: skip


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_commands_on_one_user_answer_as_described(whole: Host, *, dry_run: bool) -> None:
    added = whole.admin("AddUser", **new(dry_run=dry_run))
    assert ("would" in added, "plan" in added, "user" in added, "password" in added) == (
        dry_run, dry_run, not dry_run, not dry_run,
    )  # fmt: skip
    again = whole.admin("AddUser", **new(name="alice", keys=[], password=False, dry_run=dry_run))
    assert (again["was_there"], again["user"]["user"]) == (True, "alice")
    change = {"settings": {"memory": "16GiB"}, "keys": [OTHER_TEXT], "port": 20050, "password": True}
    changed = whole.admin("SetUser", name="alice", **change, dry_run=dry_run)
    assert [row["what"] for row in changed["changes"]] == ["memory", "keys", "ports", "password"]
    assert ("would" in changed, "password" in changed) == (dry_run, not dry_run)
    assert whole.admin("Show", name="alice")["uid"] == 30000
    removed = whole.admin("RemoveUser", name="alice", archive=True, dry_run=dry_run)
    assert [Path(path).exists() for path in removed["archives"]] == [not dry_run] * 2
    assert ("would" in removed) == dry_run


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_user_from_an_archive_is_answered_as_described(whole: Host, *, dry_run: bool) -> None:
    path = whole.archive / "carol.tar.gz"
    write_archive(path, "carol")
    whole.containers.kept_about = json.dumps({"keys": [line_on_host(KEY)], "port": 20050, "host_keys": {}})
    restored = whole.admin("RestoreUser", archive=str(path), dry_run=dry_run)
    assert (restored["plan"] if dry_run else restored["user"])["user"] == "carol"


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_commands_on_services_answer_as_described(whole: Host, *, dry_run: bool) -> None:
    about = {"name": "page", "forwards": ["443:8443"], "settings": SETTINGS, "autostart": True, "dry_run": dry_run}
    added = whole.admin("AddService", **about)
    assert (added["plan"] if dry_run else added["service"])["forwards"] == ["443:8443"]
    assert ("would" in whole.admin("RemoveService", name="web", dry_run=dry_run)) == dry_run


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_commands_on_containers_answer_as_described(whole: Host, *, dry_run: bool) -> None:
    adopted = whole.admin("Adopt", name="eve", keys=[OTHER_TEXT], dry_run=dry_run)
    assert (adopted["container"]["port"], adopted["container"]["other_ports"]) == (20070, ["20080:80"])
    stopped = whole.admin("StopContainer", name="web", force=True, dry_run=dry_run)
    started = whole.admin("StartContainer", name="web", dry_run=dry_run)
    assert [now["state"] for now in (stopped, started)] == (["running"] * 2 if dry_run else ["stopped", "running"])
    drained = whole.admin("Drain", message="new driver", stop=True, snapshot=False, plan=dry_run)
    assert {row["name"]: row["kind"] for row in drained["containers"]} == {
        "alice": "user", "web": "service", **({} if dry_run else {"eve": "user"}),
    }  # fmt: skip
    assert drained.get("is_ended_early") == (None if dry_run else False)
    assert set(whole.admin("Undrain", start=True)) == {"stopped", "started", "failed"}


@pytest.mark.parametrize("plan", [False, True])
def test_reconcile_answers_with_rules(whole: Host, *, plan: bool) -> None:
    rule = {"port": 20000, "user": "alice", "to": "10.83.0.2:22"}
    assert whole.admin("Reconcile", plan=plan) == {"remove": [rule], "add": [rule]}


def test_the_commands_on_keys_are_answered_and_written_down(whole: Host) -> None:
    assert [key["comment"] for key in whole.admin("UserKeys", name="alice")] == ["alice@laptop"]
    assert len(whole.admin("AddUserKey", name="alice", key=OTHER_TEXT)) == 2
    removed = whole.admin("RemoveUserKey", name="alice", which="2", end_sessions=True)
    assert (removed["found"]["key"]["comment"], len(removed["keys"]), removed["ended"]) == ("desk", 1, 1)
    assert removed["found"]["sessions"] == [{"address": None, "is_known": False}]
    first, second = whole.admin("Log", count=10, only_errors=False)
    assert (first["verb"], first["subject"], first["given"]) == ("keys add", "alice", {})
    assert (second["verb"], second["given"], second["result"]) == ("keys remove", {"key": "2"}, "done")
    assert whole.admin("Log", count=10, only_errors=True) == []


def test_no_method_is_missing_here() -> None:
    text = Path(__file__).read_text()
    for name in LOOKS:
        methods = description.load(name).methods
        assert [method for method in methods if f'"{method}"' not in text] == []
