"""What one person's container gets, as the administrator writes it."""

from __future__ import annotations

import datetime

import pytest
from refusals import refused

from labshell.errors import UsageError
from labshell.host.gpus import Installed
from labshell.model import settings
from labshell.model.settings import Mount


def test_what_is_given_wins_over_its_profile_and_that_over_the_configured() -> None:
    profiles = {"phd": {"cpu": "16", "gpus": "all"}}
    defaults = {"cpu": "4", "memory": "8GiB"}
    given = {"profile": "phd", "cpu": "0-3"}
    assert settings.merged(profiles, defaults, given) == {"cpu": "0-3", "memory": "8GiB", "gpus": "all"}
    assert settings.merged(profiles, defaults, {}) == defaults
    with pytest.raises(UsageError, match=r"no profile guest in labshell\.toml; there is: phd"):
        settings.merged(profiles, defaults, {"profile": "guest"})
    with pytest.raises(UsageError, match="no setting 'disc'"):
        settings.merged({"bad": {"disc": "1GiB"}}, {}, {"profile": "bad"})


GPUS = [
    Installed("0000:06:00.0", "H100", 0, "GPU-0a1b2c3d-0000-1111-2222-0123456789ab"),
    Installed("0001:07:00.0", "H100", 1),
    Installed("0000:02:00.0"),
]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("0", "0000:06:00.0"),
        ("1,0,01", "0001:07:00.0,0000:06:00.0"),
        ("06:00.0", "0000:06:00.0"),
        ("gpu-0A1B2C3D-0000-1111-2222-0123456789AB,0000:06:00.0", "0000:06:00.0"),
        ("02:00.0", "0000:02:00.0"),
        ("all", "all"),
        ("none", "none"),
        ("", ""),
    ],
)
def test_a_gpu_may_be_given_by_every_name_it_has(text: str, addresses: str) -> None:
    assert settings.checked({"gpus": text}) == {"gpus": text}
    assert settings.addresses_of_gpus(text, GPUS) == addresses


@pytest.mark.parametrize("text", ["3", "0,3", "2", "0000:01:00.0", "07:00.0", "GPU-0a1b2c3d-0000-1111-2222-0123456789ff"])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(text: str) -> None:
    known = r"this host has: 0 \(H100, 0000:06:00.0\), 1 \(H100, 0001:07:00.0\), 0000:02:00.0"
    with pytest.raises(UsageError, match=f"There is no GPU {text.split(',')[-1]}; {known}"):
        settings.addresses_of_gpus(text, GPUS)
    with pytest.raises(UsageError, match="this host has: none"):
        settings.addresses_of_gpus(text, [])


@pytest.mark.parametrize("cpu", ["3", "0-2", "2-2", "99"])
def test_more_processors_than_there_are_are_refused(cpu: str) -> None:
    with pytest.raises(UsageError, match=f"cpu {cpu} is not possible: this host has 2 processors"):
        settings.refuse_more_processors(cpu, 2)
    settings.refuse_more_processors(cpu, 100)


@pytest.mark.parametrize("name", ["memory", "disk"])
def test_a_size_without_a_unit_is_told_the_unit(name: str) -> None:
    with pytest.raises(UsageError, match=f"5 has no unit for {name}: write 5GiB or 5MiB"):
        settings.checked({name: "5"})


@pytest.mark.parametrize(("name", "value"), [("memory", "127MiB"), ("memory", "1MiB"), ("processes", "199")])
def test_what_no_container_boots_with_is_refused_with_the_least_that_it_needs(name: str, value: str) -> None:
    least = settings.LEAST[name]
    with refused(UsageError, "setting-too-small") as caught:
        settings.checked({name: value})
    assert least in str(caught.value)
    assert settings.checked({name: least}) == {name: least}


def test_of_several_mounts_the_wrong_one_is_named() -> None:
    with pytest.raises(UsageError, match="'srv:/data' is not possible for mounts: write /data:/data or"):
        settings.checked({"mounts": "/a:/a,srv:/data"})


IMPOSSIBLE = [
    ("cpu", "all"), ("cpu", "0"), ("cpu", "１"), ("cpu", "4\n"), ("cpu", "0-"), ("memory", "64"), ("memory", "1GiB\n"),
    ("memory", "1 GiB"), ("memory", "0GiB"), ("memory", "1gib"), ("disk", "-1GiB"), ("disk", "50%"),
    ("disk", "1GiB,path=/"), ("processes", "0"), ("processes", "4096.5"), ("processes", "-1"), ("processes", "１２"),
    ("gpus", "x"), ("gpus", "GPU-1"), ("gpus", "all,0000:01:00.0"), ("gpus", "0000:01:00"), ("gpus", "0000:01:00.0,"), ("gpus", "../dev"),
    ("mounts", "/data"), ("mounts", "data:/data"), ("mounts", "/data:/"), ("mounts", "/data:/data:rw"),
    ("mounts", "/data:/../etc"), ("mounts", "/data/../..:/x"), ("mounts", "/a b:/x"), ("mounts", "/a:/x,"), ("mounts", "/a:/etc"),
    ("nesting", "true"), ("nesting", ""), ("desktop-port", "x"), ("desktop-port", "-1"), ("expires", "tomorrow"),
    ("expires", "2027-02-30"), ("expires", "2027-1-1"), ("gpu", "all"), ("limits.cpu", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), IMPOSSIBLE)
def test_what_is_impossible_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        settings.checked({name: text})


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_a_refused_setting_is_named_with_an_example_that_is_taken(name: str) -> None:
    with pytest.raises(UsageError, match=f"not possible for {name}: write ") as caught:
        settings.checked({name: "lots"})
    examples = str(caught.value).split("write ")[1].split(". Both")[0].rstrip(".").replace(", or ", " or ").replace(", none", " or none")
    for example in examples.split(" or "):
        assert settings.checked({name: example}) == {name: example}


def test_limits_become_the_engines_and_none_takes_one_away() -> None:
    given = {"cpu": "0-3", "memory": "1GiB", "processes": "none", "disk": "9GiB", "nesting": "yes"}
    assert settings.engine_config(given, nvidia_runtime=False) == {
        "limits.cpu": "0-3", "limits.memory": "1GiB", "limits.processes": "", "security.nesting": "true",
    }  # fmt: skip
    assert settings.disk_size(given) == "9GiB"
    assert settings.disk_size({"disk": "none"}) == ""
    assert settings.disk_size({}) is None


def test_gpus_become_devices_and_the_runtime_only_where_it_is_wanted() -> None:
    assert settings.engine_devices({"gpus": "all"}) == {"labshell-gpu0": {"type": "gpu", "gputype": "physical"}}
    two = settings.engine_devices({"gpus": "0000:01:00.0,02:00.0"})
    assert [device["pci"] for device in two.values()] == ["0000:01:00.0", "0000:02:00.0"]
    assert settings.gpus_in(two.values()) == "0000:01:00.0,0000:02:00.0"
    assert settings.gpus_in([]) == "none"
    assert settings.engine_devices({"gpus": "none"}) == {}
    assert settings.engine_config({"gpus": "all"}, nvidia_runtime=True)["nvidia.runtime"] == "true"
    assert settings.engine_config({"gpus": "none"}, nvidia_runtime=True)["nvidia.runtime"] == ""
    assert settings.engine_config({"gpus": "all"}, nvidia_runtime=False) == {}


def test_mounts_keep_their_owners_and_do_not_hinder_a_start() -> None:
    text = "/data:/data:ro,/nas/alice:/nas,/old:/old:noshift:ro"
    assert settings.mounts_of({"mounts": text}) == [
        Mount("/data", "/data", is_read_only=True), Mount("/nas/alice", "/nas"), Mount("/old", "/old", is_read_only=True, shift=False),
    ]  # fmt: skip
    devices = settings.engine_devices({"mounts": text})
    assert devices["labshell-mount0"] == {
        "type": "disk", "source": "/data", "path": "/data", "required": "false", "readonly": "true", "shift": "true",
    }  # fmt: skip
    assert "shift" not in devices["labshell-mount2"]
    assert settings.mounts_of({"mounts": "none"}) == settings.mounts_of({}) == []


def test_only_devices_that_are_mentioned_are_replaced() -> None:
    assert settings.replaced_devices({"gpus": "none", "cpu": "1"}) == ("labshell-gpu",)
    assert settings.replaced_devices({}) == ()


def test_a_last_day_is_a_date() -> None:
    assert settings.date_of("2027-09-30") == datetime.date(2027, 9, 30)
    assert settings.date_of("") is settings.date_of("none") is None
