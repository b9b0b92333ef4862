"""labshelld: the only part of labshell with power, and what stands between it and its callers.

Two sockets: one for researchers, whom the kernel identifies and who can name nobody; one for root. Every peer is
treated as hostile: its messages are bounded in size and time, its connections in number, and it speaks to
nothing but the checked interface of `service`. One thread per connection, and one for each thing that is looked at
from time to time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import grp
import logging
import os
import pwd
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from labshell.config import GROUP, Config, load
from labshell.daemon.administration import AdminInterface
from labshell.daemon.calls import Call, error_reply
from labshell.daemon.interfaces import GatewayInterface
from labshell.daemon.pulses import Pulses
from labshell.daemon.service import Service
from labshell.errors import Crowded, LabshellError
from labshell.forwarding.firewall import Firewall
from labshell.host import accounts, files, machine
from labshell.journal import start_logging
from labshell.model.access import Caller
from labshell.operations.host_accounts import end_expired
from labshell.operations.idle_stop import LOOK_SECONDS, IdleStop
from labshell.operations.lab import build
from labshell.places import CONFIG_FILE
from labshell.wire import protocol

log = logging.getLogger(__name__)
REQUEST_SECONDS = 10
SEND_SECONDS = 10
REQUESTS_PER_CONNECTION = 32
CONNECTIONS_PER_UID = 8
CONNECTIONS = 256
CROWDED_HOST = Crowded("server-crowded", "The server is busy: too many connections; try again in a moment.")
CROWDED_PERSON = Crowded(
    "connections-too-many", "You have too many connections to labshell open; close some and try again."
)
LOOK_SHARE = 1000  # looking at the rules takes this part of a processor at most, however many users there are
FIRST_PASSED_DESCRIPTOR = 3


class Connections:
    """How many connections there are, in all and by uid: root's do not count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_uid: Counter[int] = Counter()

    @property
    def are_all_taken(self) -> bool:
        """Whether the limit of all users together is reached."""
        return self._by_uid.total() >= CONNECTIONS

    @contextlib.contextmanager
    def one_more(self, uid: int) -> Iterator[bool]:
        """Whether this caller may have another connection; counted while the block runs."""
        with self._lock:
            allowed = uid == 0 or (self._by_uid[uid] < CONNECTIONS_PER_UID and self._by_uid.total() < CONNECTIONS)
            self._by_uid[uid] += allowed
        try:
            yield allowed
        finally:
            with self._lock:
                self._by_uid[uid] -= allowed
                if not self._by_uid[uid]:
                    del self._by_uid[uid]


def caller_of(connection: socket.socket) -> Caller:
    """Who connected, from the kernel: the uid at the time of connecting, and the groups of its account."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Caller(uid, "")
    login = machine.login_of(pid) if uid == 0 else entry.pw_name
    return Caller(uid, entry.pw_name, accounts.group_names(entry.pw_name, entry.pw_gid), login)


def requests(connection: socket.socket) -> Iterator[bytes]:
    """The messages a peer sends, without their NUL: each within size and time, or the end."""
    pending = b""
    for _ in range(REQUESTS_PER_CONNECTION):
        deadline = time.monotonic() + REQUEST_SECONDS
        while b"\0" not in pending:
            left = deadline - time.monotonic()
            if left <= 0 or len(pending) > protocol.LONGEST_REQUEST:
                return
            connection.settimeout(left)
            received = connection.recv(65536)  # plain recv: passed descriptors are dropped by the kernel
            if not received:
                return
            pending += received
        message, _, pending = pending.partition(b"\0")
        if len(message) > protocol.LONGEST_REQUEST:
            return
        yield message


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the peer has closed its end or its sending side; looks without waiting and without taking anything.

    Bytes that it sent before and that nobody has read do not hide it, as they would from a recv with MSG_PEEK.
    """
    look = select.poll()
    look.register(connection, select.POLLRDHUP)  # POLLHUP and POLLERR are always looked for
    return bool(look.poll(0))


def _refuse(connection: socket.socket, refusal: Crowded) -> None:
    """Refuse a caller who may try again in a moment."""
    connection.settimeout(SEND_SECONDS)
    connection.sendall(error_reply(refusal))


class Server:
    """One socket and its service."""

    def __init__(self, listener: socket.socket, service: Service, connections: Connections, pulses: Pulses) -> None:
        self._listener = listener
        self._service = service
        self._connections = connections
        self._pulses = pulses

    def serve_forever(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:  # out of descriptors: wait for some to be closed
                log.warning("cannot accept", extra={"why": str(error)})
                time.sleep(0.2)
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError as error:  # no thread can be had: this one waits outside, and the next may find one
                log.warning("cannot serve", extra={"why": str(error)})
                with connection, contextlib.suppress(OSError):
                    _refuse(connection, CROWDED_HOST)
                time.sleep(0.2)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            caller = caller_of(connection)
            with self._connections.one_more(caller.uid) as allowed:
                if not allowed:
                    _refuse(connection, CROWDED_HOST if self._connections.are_all_taken else CROWDED_PERSON)
                    return
                for message in requests(connection):
                    self._answer(connection, message, caller)

    def _answer(self, connection: socket.socket, message: bytes, caller: Caller) -> None:
        """Send every reply. A verb that has begun runs to its end, even if the caller has gone."""
        is_read = True
        call = Call(caller, is_gone=lambda: not is_read or _has_hung_up(connection))
        with self._pulses.during(connection, call):
            for reply in self._service.answer(message, call):
                if is_read:
                    try:
                        connection.settimeout(SEND_SECONDS)
                        self._pulses.send(connection, reply, call)
                    except OSError:
                        is_read = False
                call.attached.clear()
        if not is_read:
            raise ConnectionAbortedError


def passed_sockets() -> dict[str, socket.socket]:
    """The sockets systemd passed, by their names (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    sockets = {}
    for offset, name in enumerate(names[:count]):
        os.set_inheritable(FIRST_PASSED_DESCRIPTOR + offset, False)  # noqa: FBT003 - the library's form
        sockets[name] = socket.socket(fileno=FIRST_PASSED_DESCRIPTOR + offset)
    return sockets


def listen(path: Path, group: str | None) -> socket.socket:
    """A new socket at `path`: for root, or for root and a group. One without a listener is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise LabshellError("daemon-already-running", "labshelld is running already: {path} answers.", path=path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    listener.listen(128)
    return listener


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd, contextlib.suppress(OSError):
            to_systemd.sendto(state.encode(), address.replace("@", "\0", 1))


def keep_reconciled(firewall: Firewall, seconds: int, stopping: threading.Event) -> None:
    """Put back what a firewall reload wiped, for as long as the daemon runs."""
    while True:
        began = time.thread_time()
        try:
            firewall.reconcile()
        except LabshellError as error:
            log.warning("not reconciled", extra={"why": str(error)})
        except Exception:  # a bug here must not end reconciling
            log.exception("bug while reconciling")
        if stopping.wait(max(seconds, LOOK_SHARE * (time.thread_time() - began))):
            return


def keep_looking(look: Callable[[], object], what: str, stopping: threading.Event) -> None:
    """Reconcile, expire and stop what is due, as long as the daemon runs."""
    while not stopping.wait(LOOK_SECONDS):
        try:
            look()
        except LabshellError as error:
            log.warning("%s not looked at", what, extra={"why": str(error)})
        except Exception:  # a bug here must not end looking
            log.exception("bug while looking for %s", what)


def keep_watchdog(stopping: threading.Event) -> None:
    """Tell systemd's watchdog that we live, twice as often as it asks."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while interval and not stopping.wait(interval):
        notify("WATCHDOG=1")


def serve(config: Config) -> None:
    """Listen, reconcile and answer until SIGTERM or SIGINT."""
    for folder in (config.paths.run, config.paths.public, config.paths.ports, config.paths.keys):
        files.ensure_folder(folder)
    files.ensure_folder(config.paths.state, 0o700)
    files.write(config.paths.language_file, f"{config.language}\n".encode())
    lab = build(config)
    idle_stop = IdleStop(lab)
    passed = passed_sockets()
    user = passed.get("user") or listen(config.paths.user_socket, GROUP)
    admin = passed.get("admin") or listen(config.paths.admin_socket, None)
    connections, pulses, stopping = Connections(), Pulses(), threading.Event()
    servers = (
        Server(user, Service(protocol.GATEWAY, GatewayInterface(lab, idle_stop)), connections, pulses),
        Server(admin, Service(protocol.ADMIN, AdminInterface(lab, idle_stop)), connections, pulses),
    )
    work: list[Callable[[], None]] = [server.serve_forever for server in servers]
    work.append(functools.partial(keep_reconciled, lab.firewall, config.reconcile_seconds, stopping))
    if config.idle_stop_days:
        work.append(functools.partial(keep_looking, lambda: list(idle_stop.stop_idle()), "idle containers", stopping))
    work.append(functools.partial(keep_looking, lambda: end_expired(lab), "expired people", stopping))
    work.append(functools.partial(keep_watchdog, stopping))
    work.append(functools.partial(pulses.beat_until, stopping))
    for target in work:
        threading.Thread(target=target, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("ready", extra={"pid": os.getpid()})
    notify("READY=1")
    stopping.wait()
    notify("STOPPING=1")
    log.info("stopping")


def main() -> None:
    parser = argparse.ArgumentParser(prog="labshelld", description="labshell's daemon; runs until it is stopped")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE, help="another configuration file")
    parser.add_argument("--remove-rules", action="store_true", help="take labshell's firewall rules away and exit")
    options = parser.parse_args()
    start_logging()
    try:
        config = load(options.config)
        if options.remove_rules:
            build(config).firewall.remove_all()
        else:
            serve(config)
    except LabshellError as error:
        log.error("cannot go on", extra={"id": error.id, "why": str(error)}, exc_info=error.__cause__)
        sys.exit(error.status)
