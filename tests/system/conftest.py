"""Fixtures of the system tests: one test host for the whole run, and users on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator, Iterator

import pytest
from testhost import Host, running_host

LOGS = ("/var/log/labshell/labshelld.log", "/var/log/lxd/lxd.log")
LOG_LINES = "40"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the daemon and the engine said last goes with a failure: the host is gone afterwards."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and isinstance(host, Host):
        for log in LOGS:
            with contextlib.suppress(OSError, AssertionError, subprocess.SubprocessError):
                report.sections.append((log, host.run(["tail", "-n", LOG_LINES, log], check=False).stdout))
    return report


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A gateway with a template, set up by scripts/setup-host, and its two client machines."""
    if os.geteuid() != 0:
        pytest.skip("a test host needs root")
    with running_host() as running:
        running.set_up()
        running.build_template()
        yield running


@pytest.fixture(scope="session")
def alice(host: Host) -> str:
    """A researcher who is there for the whole run: tests leave the account as they found it."""
    host.add_user("alice")
    return "alice"


@pytest.fixture(scope="session")
def bob(host: Host) -> str:
    """Another researcher, as lasting as alice."""
    host.add_user("bob")
    return "bob"


@pytest.fixture(scope="session")
def alice_port(host: Host, alice: str) -> int:
    """Alice's SSH port on the gateway."""
    return host.ssh_port(alice)


@pytest.fixture(scope="session")
def bob_port(host: Host, bob: str) -> int:
    """Bob's SSH port on the gateway."""
    return host.ssh_port(bob)


@pytest.fixture
def guest(host: Host) -> Iterator[str]:
    """A researcher for one test, who may be broken in any way."""
    host.add_user("guest")
    yield "guest"
    host.remove_user("guest")
