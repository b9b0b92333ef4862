"""Fixtures of the system tests: one test host for the whole run, and users on it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from testhost import Host, running_host


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
