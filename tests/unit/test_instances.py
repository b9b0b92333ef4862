"""What is believed of an address: the engine's pinned one, and root inside only on the lab's own network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from labshell.engine.client import Engine
from labshell.engine.instances import Instances
from labshell.engine.network import Network

SAID, PINNED = "192.168.7.7", "10.83.0.2"


def instances(monkeypatch: pytest.MonkeyPatch, *, pinned: str | None, is_labs_own: bool) -> Instances:
    """One container of alice's, inside which root has set another address."""
    nic = {"ipv4.address": pinned} if pinned else {}
    state = {"network": {"eth0": {"addresses": [{"family": "inet", "scope": "global", "address": SAID}]}}}
    item: dict[str, Any] = {
        "name": "alice",
        "status": "Running",
        "config": {"user.labshell.owner": "alice", "user.labshell.uid": "30000"},
        "expanded_devices": {"eth0": nic},
        "state": state,
    }
    engine = SimpleNamespace(
        read=lambda *path, **_: state if path[-1] == "state" else item, read_all=lambda *_, **__: [item]
    )
    network = SimpleNamespace(is_labs_own=is_labs_own, believed=lambda address: address)
    found = Instances(cast(Engine, engine), cast(Network, network))
    monkeypatch.setattr(found, "pools", SimpleNamespace(held=lambda _: {}, held_by=lambda _: None))
    return found


@pytest.mark.parametrize(
    ("pinned", "is_labs_own", "address"),
    [(PINNED, False, PINNED), (None, False, None), (None, True, SAID), (PINNED, True, PINNED)],
)
def test_root_inside_chooses_its_address_on_the_labs_own_network_only(
    monkeypatch: pytest.MonkeyPatch, *, pinned: str | None, is_labs_own: bool, address: str | None
) -> None:
    found = instances(monkeypatch, pinned=pinned, is_labs_own=is_labs_own)
    assert found.owned("alice", 30000).address == address
    assert found.owned_with_usage("alice", 30000)[0].address == address
    assert [container.address for container, _ in found.all_with_usage()] == [address]
