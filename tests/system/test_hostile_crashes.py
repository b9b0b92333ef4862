"""The daemon killed before every single act of a verb, for real: what it leaves is whole, or a second try completes it.

Which act is which is nobody's business here: tests/system/dying_daemon.py counts them. Without LABSHELL_HOSTILE=full a
few acts of each verb are tried, other ones for other verbs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import FULL, works
from testhost import Host, wait_until

pytestmark = pytest.mark.root
WANTED, COUNTED = "/run/labshell-die-before", "/run/labshell-acts"
DAEMON = "/usr/local/lib/dying_daemon.py"
COMMAND = f"/opt/labshell/venv/bin/python -I {DAEMON} {WANTED} {COUNTED}"
MOST_ACTS = 80
STEP = 1 if FULL else 29


@pytest.fixture(scope="module", autouse=True)
def mortal(host: Host) -> Iterator[None]:
    """A daemon that can be told when to die, and does nothing by itself meanwhile."""
    script = Path(__file__).with_name("dying_daemon.py").read_text()
    host.run(["tee", DAEMON], input=script)
    set_look(host, 3000)
    host.restart_daemon(COMMAND)
    yield
    host.run(["rm", "-f", DAEMON, WANTED, COUNTED])
    set_look(host, 3)
    host.restart_daemon()


def set_look(host: Host, seconds: int) -> None:
    host.run(
        ["sed", "-i", f"s/^reconcile_seconds = .*/reconcile_seconds = {seconds}/", "/etc/labshell/labshell.toml"]
    )


class Verb:
    """What makes it possible, what must be true after it was cut off, and what takes all of it back."""

    words = ""  # what a researcher types

    def __init__(self, host: Host) -> None:
        self.host = host

    def prepare(self) -> None:
        """A person who has written something."""
        self.host.add_user("phoenix")
        self.host.client.ssh("phoenix", "run echo precious > thesis", check=True)

    def argv(self) -> list[str]:
        return self.host.client.argv(self.host.client.ssh_argv("phoenix", self.words))

    def settle(self) -> None:
        raise NotImplementedError

    def thesis(self) -> str:
        works(self.host, "phoenix", self.host.ssh_port("phoenix"))
        return self.host.client.ssh("phoenix", "run cat thesis").stdout

    def clear(self) -> None:
        self.host.remove_user("phoenix")


class AddUser(Verb):
    def prepare(self) -> None:
        self.key = self.host.client.make_key("phoenix").with_suffix(".pub")

    def argv(self) -> list[str]:
        return self.host.argv(["labshell-admin", "add-user", "phoenix", "--key", str(self.key)])

    def settle(self) -> None:
        self.host.add_user("phoenix")
        works(self.host, "phoenix", self.host.ssh_port("phoenix"))


class RemoveUser(Verb):
    def prepare(self) -> None:
        super().prepare()
        self.port = self.host.ssh_port("phoenix")

    def argv(self) -> list[str]:
        return self.host.argv(["labshell-admin", "remove-user", "phoenix", "--yes"])

    def settle(self) -> None:
        assert self.host.admin("remove-user", "phoenix", "--yes", check=False).returncode in (0, 2)
        assert not self.host.exists("/public/ports/phoenix")
        assert not self.host.exists("/etc/labshell/keys/phoenix")
        assert self.host.run(["getent", "passwd", "phoenix"], check=False).returncode != 0
        assert "phoenix" not in self.host.run(["lxc", "list", "--format", "csv"]).stdout
        assert f"--dport {self.port} " not in self.host.run(["iptables-legacy-save"]).stdout
        assert "phoenix" not in self.host.admin("list").stdout

    def clear(self) -> None:
        self.host.run(["sh", "-c", "rm -f /var/lib/labshell/archive/phoenix*"])


class Rebuild(Verb):
    words = "rebuild --yes"

    def settle(self) -> None:
        if self.thesis() != "precious\n":
            self.host.client.ssh("phoenix", "rebuild undo --yes", check=True, timeout=120)
            assert self.thesis() == "precious\n"


class Restore(Verb):
    words = "snapshot restore good --yes"

    def prepare(self) -> None:
        super().prepare()
        self.host.client.ssh("phoenix", "snapshot create good", check=True)
        self.host.client.ssh("phoenix", "run echo later > thesis", check=True)

    def settle(self) -> None:
        assert self.thesis() in {"precious\n", "later\n"}
        self.host.client.ssh("phoenix", "snapshot restore good --yes", check=True, timeout=120)
        assert self.thesis() == "precious\n"


class AddPort(Verb):
    words = "ports add 8080"

    def settle(self) -> None:
        assert self.thesis() == "precious\n"
        self.host.client.ssh("phoenix", "ports remove 8080")
        self.host.client.ssh("phoenix", "ports add 8080", check=True)
        [forward] = json.loads(self.host.client.ssh("phoenix", "ports --json", check=True).stdout)
        rules = self.host.run(["iptables-legacy-save", "-t", "nat"]).stdout
        assert rules.count(f"--dport {forward['port']} ") == 1
        assert rules.count("labshell:phoenix") == 2


def killed_before(host: Host, number: int, argv: list[str]) -> bool:
    """Run it with a daemon that dies before its act of this number; whether there was one."""
    host.run(["rm", "-f", COUNTED])
    host.run(["tee", WANTED], input=str(number))
    pid = host.daemon_pid()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    died = host.exists(COUNTED) and len(host.read(COUNTED).splitlines()) == number
    host.run(["rm", "-f", WANTED])
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in ({0, 75} if died else {0}), done
    if died:
        wait_until(lambda: not host.exists(f"/proc/{pid}"))
        host.start_daemon(COMMAND)
    else:
        host.restart_daemon(COMMAND)  # it may count no further
    return died


@pytest.mark.parametrize("verb", [AddUser, RemoveUser, Rebuild, Restore, AddPort])
def test_a_daemon_killed_before_any_act_loses_nothing_of_anybodys(
    host: Host, bob: str, bob_port: int, verb: type[Verb]
) -> None:
    case = verb(host)
    number, tried = 1, 0
    while number < MOST_ACTS:
        case.prepare()
        died = killed_before(host, number, case.argv())
        if died:
            tried += 1
            try:
                case.settle()
            except Exception as error:
                raise AssertionError(f"killed before act {number}:\n{host.read(COUNTED)}") from error
        case.clear()
        works(host, bob, bob_port)
        if not died:
            break
        number += STEP
    assert tried
    assert number < MOST_ACTS
    print(f"{verb.__name__}: killed before {tried} acts")  # noqa: T201 - for docs/security.md
