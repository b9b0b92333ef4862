"""Containers that nobody uses, on a host that stops them after a week. A week passes by changing the file of moments."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import Host, wait_until

pytestmark = pytest.mark.root
DAY = 86400
ACTIVITY = "/var/lib/labshell/activity.json"


@pytest.fixture(scope="module", autouse=True)
def stopping(host: Host) -> Iterator[None]:
    with host.configured("idle_stop_days = 7"):
        yield


def looked(host: Host, *options: str) -> dict[str, Any]:
    rows = json.loads(host.admin("idle", "--json", *options).stdout)
    return {row["user"]: row for row in rows}


def let_pass(host: Host, user: str, days: float) -> None:
    """So many days in which this user's container ran and did nothing, as the daemon and the engine remember them."""
    then = time.time() - days * DAY
    started = time.strftime("%Y-%m-%d %H:%M:%S+00:00", time.gmtime(then - DAY))
    change = f"UPDATE instances SET last_use_date = '{started}' WHERE name = '{user}'"  # noqa: S608 - names of ours
    host.run(["lxd", "sql", "global", change])
    for _ in range(20):  # until it has been quiet from one look to the next
        moments = json.loads(host.read(ACTIVITY)) if host.exists(ACTIVITY) else {}
        host.run(["tee", ACTIVITY], input=json.dumps({**moments, user: then}))
        time.sleep(2)
        if looked(host)[user]["idle_since"] < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then + 60)):
            return
    raise AssertionError("it is never quiet")


def state(host: Host, user: str) -> str:
    return str(json.loads(host.admin("show", user, "--json").stdout)["state"])


def test_an_idle_container_is_warned_then_stopped_and_its_owner_told(host: Host, guest: str) -> None:
    let_pass(host, guest, 6.5)
    host.run(
        [
            "lxc",
            "exec",
            guest,
            "--",
            "sh",
            "-c",
            "printf '#!/bin/sh\\necho \"$*\" > /root/wall' > /usr/local/bin/wall",
        ]
    )
    host.run(["lxc", "exec", guest, "--", "chmod", "755", "/usr/local/bin/wall"])
    let_pass(host, guest, 6.5)
    assert looked(host, "--stop")[guest]["was_stopped"] is False
    assert f"ssh {guest}@gateway keep 3d" in host.run(["lxc", "exec", guest, "--", "cat", "/root/wall"]).stdout
    status = json.loads(host.client.ssh(guest, "status --json", check=True).stdout)
    assert (status["state"], status["idle_stop_days"]) == ("running", 7)
    assert status["stops_at"]
    assert "will stop at" in host.client.ssh(guest, "status", check=True).stdout

    let_pass(host, guest, 7.5)
    assert looked(host, "--stop")[guest]["was_stopped"] is True
    assert state(host, guest) == "stopped"
    back = host.client.ssh(guest, check=True)
    assert "stopped after 7 days without use" in back.stderr
    let_pass(host, guest, 0)
    assert looked(host, "--stop")[guest]["was_stopped"] is False


def test_a_job_without_a_terminal_is_use(host: Host, guest: str) -> None:
    let_pass(host, guest, 8)
    host.client.ssh(guest, "run sh -c 'nohup timeout 60 sh -c \"while :; do :; done\" >/dev/null 2>&1 &'", check=True)
    looked(host)
    time.sleep(1)
    assert looked(host, "--stop")[guest]["was_stopped"] is False
    assert state(host, guest) == "running"


@pytest.mark.parametrize("way", ["through the port", "through the gateway"])
def test_somebody_who_is_logged_in_and_does_nothing_is_use(host: Host, guest: str, way: str) -> None:
    let_pass(host, guest, 8)
    if way == "through the port":
        argv = host.client.ssh_argv(guest, "sleep 60", port=host.ssh_port(guest))
    else:
        argv = host.client.ssh_argv(guest, "run sleep 60")
    with host.client.background(argv):
        wait_until(lambda: "sleep" in host.run(["lxc", "exec", guest, "--", "ps", "-eo", "comm"]).stdout, 15)
        assert looked(host, "--stop")[guest]["was_stopped"] is False


def test_keep_holds_it_off_and_off_ends_that(host: Host, guest: str) -> None:
    done = host.client.ssh(guest, "keep 3d waiting for data", check=True)
    assert "exempt from idle stop until" in done.stdout
    assert "waiting for data" in done.stdout
    let_pass(host, guest, 8)
    row = looked(host, "--stop")[guest]
    assert (row["was_stopped"], row["held_for"]) == (False, "waiting for data")
    assert json.loads(host.client.ssh(guest, "keep --json", check=True).stdout)["held_for"] == "waiting for data"
    assert "waiting for data" in host.admin("drain", "--plan").stdout
    assert "waiting for data" in host.admin("idle").stdout
    assert "will stop at" in host.client.ssh(guest, "keep off", check=True).stdout
    let_pass(host, guest, 8)
    assert looked(host, "--stop")[guest]["was_stopped"] is True


@pytest.mark.parametrize("words", ["keep 31d", "keep soon", "keep -1d", "keep 3d " + "x" * 81])
def test_a_wrong_wish_changes_nothing(host: Host, alice: str, words: str) -> None:
    done = host.client.ssh(alice, words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "held_until" not in json.loads(host.client.ssh(alice, "status --json", check=True).stdout)


def test_nobody_is_stopped_for_what_was_seen_only_once(host: Host, guest: str) -> None:
    let_pass(host, guest, 8)
    host.restart_daemon()
    assert looked(host, "--stop")[guest]["was_stopped"] is False
    assert looked(host, "--stop")[guest]["was_stopped"] is True
