"""What the administrator reads of a container and of a command: values with units, before and after."""

from __future__ import annotations

import datetime

import pytest

from labshell.model.container import Container, OwnForward
from labshell.model.settings import SETTINGS
from labshell.operations import plans


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("memory", "64GiB", "64 GiB"),
        ("memory", "512MiB", "512 MiB"),
        ("disk", "", "no limit"),
        ("disk", "none", "no limit"),
        ("cpu", "1", "1 processor"),
        ("cpu", "8", "8 processors"),
        ("cpu", "0-7", "processors 0-7"),
        ("cpu", "none", "no limit"),
        ("processes", "4096", "4096 processes"),
        ("gpus", "none", "none"),
        ("gpus", "all", "all"),
        ("gpus", "0000:01:00.0,0000:02:00.0", "0000:01:00.0, 0000:02:00.0"),
        ("mounts", "/data:/d:ro,/nas/a:/nas:noshift", "/data at /d (read-only), /nas/a at /nas (owners unchanged)"),
        ("nesting", "yes", "yes"),
        ("expires", "none", "never"),
        ("expires", "2031-09-30", "2031-09-30"),
        ("desktop-port", "", "none"),
    ],
)
def test_a_value_has_its_unit(name: str, text: str, sentence: str) -> None:
    assert plans.said(name, text) == sentence


def test_a_change_says_what_was_and_what_is() -> None:
    before = {"memory": "8GiB", "cpu": "8", "disk": "none", "gpus": "all"}
    wanted = {"memory": "16GiB", "cpu": "8", "disk": "200GiB", "gpus": ""}
    assert [change.text for change in plans.changes(before, wanted)] == [
        "memory: 8.0 GiB -> 16 GiB",
        "cpu: 8 processors, as before",
        "disk: no limit -> 200 GiB",
        "gpus: all -> none",
    ]
    [rounded] = plans.changes({"memory": "64GiB"}, {"memory": "65535MiB"})
    assert rounded.text == "memory: 64GiB -> 65535MiB"


def test_what_a_container_has_is_told_for_every_setting() -> None:
    config = {"limits.cpu": "8", "limits.memory": "64GiB", "limits.processes": "4096",
              "security.nesting": "true"}  # fmt: skip
    desktop = OwnForward(20019, 3389, "desktop")
    full = Container("a", "Running", "a", 1, None, gpus="all", mounts="/d:/d:ro", forwards=(desktop,),
                     expires=datetime.date(2031, 9, 30), disk_limit="200GiB", config=config)  # fmt: skip
    assert plans.held(full) == {
        "cpu": "8", "memory": "64GiB", "disk": "200GiB", "processes": "4096", "gpus": "all", "mounts": "/d:/d:ro",
        "nesting": "yes", "desktop-port": "20019", "expires": "2031-09-30",
    }  # fmt: skip
    empty = plans.held(Container("a", "Running", "a", 1, None))
    assert list(empty) == list(SETTINGS)
    assert set(empty.values()) == {"none", "no"}
