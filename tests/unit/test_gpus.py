"""GPUs as NVML reports them, with a library in place of the hardware; and whose processes they serve."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from doubles import answer_of, lab_of
from refusals import refused

from labshell.config import Config
from labshell.host import gpus, machine
from labshell.host.gpus import NoGpus
from labshell.model.container import Container
from labshell.model.usage import container_of_control_group
from labshell.operations import usage


class Library:
    """NVML with one GPU that says everything and one that says nothing, in the library's own types."""

    def __init__(self) -> None:
        self.opened = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"550.54.15"

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return _only_first(handle, "NVIDIA A100")

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: Any = None) -> Any:
        reserved = 0 if version == pynvml.nvmlMemory_v2 else 480 << 20
        return _only_first(handle, SimpleNamespace(used=(5 << 30) + reserved, total=40 << 30))

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        return _only_first(handle, SimpleNamespace(busId=b"00000000:3B:00.0"))

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return b"GPU-0a1b2c3d-0000-1111-2222-0123456789ab"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return _only_first(handle, SimpleNamespace(gpu=83))

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return _only_first(handle, 61)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        processes = [(10, 1 << 30), (11, 2 << 30), (12, None), (13, 3 << 30)]
        return _only_first(handle, [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in processes])

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        return _only_first(handle, [SimpleNamespace(pid=10, usedGpuMemory=1 << 30)])


def test_a_gpu_is_known_by_number_uuid_and_address_and_others_by_their_place_on_the_bus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Library().install(monkeypatch)
    for address, kind in (("0000:3b:00.0", "0x030200"), ("0000:02:00.0", "0x030000"), ("0000:00:1f.0", "0x060100")):
        (tmp_path / address).mkdir()
        (tmp_path / address / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(gpus._on_bus, "__defaults__", (tmp_path,))
    found = [(gpu.index, gpu.model, gpu.address, gpu.uuid[:12]) for gpu in gpus.installed()]
    assert found == [(0, "NVIDIA A100", "0000:3b:00.0", "GPU-0a1b2c3d"), (None, "GPU", "0000:02:00.0", "")]


def _only_first(handle: int, value: Any) -> Any:
    if handle:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    library.install(monkeypatch)
    return library


def test_a_gpu_is_read_with_its_processes_each_once(library: Library) -> None:
    first, second = gpus.gpus()
    assert (first.model, first.utilization, first.temperature) == ("NVIDIA A100", 83, 61)
    assert (first.memory_used, first.memory_total) == (5 << 30, 40 << 30)
    assert [process.pid for process in first.processes] == [10, 11, 12, 13]
    assert (second.model, second.memory_used, second.utilization, second.processes) == ("GPU", None, None, ())
    assert library.opened == 0


def test_the_drivers_version_is_text_whatever_the_library_gives(library: Library) -> None:
    assert gpus.driver_version() == "550.54.15"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA GPU"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no NVIDIA GPU"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, r"version mismatch\.$"),
    ],
)
def test_without_a_driver_there_is_a_sentence(
    library: Library, monkeypatch: pytest.MonkeyPatch, error: int, sentence: str
) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(error)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(NoGpus, match=sentence):
        gpus.gpus()


def test_a_driver_that_fails_in_the_middle_is_closed_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fail)
    with pytest.raises(NoGpus):
        gpus.gpus()
    assert library.opened == 0


def test_a_gpu_that_has_fallen_off_the_bus_hides_no_other(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: _only_first(index, 0))
    assert [(gpu.index, gpu.model) for gpu in gpus.gpus()] == [(0, "NVIDIA A100"), (1, "GPU")]


def test_a_driver_that_hangs_holds_up_nobody_for_long(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    wakes = threading.Event()
    monkeypatch.setattr(gpus, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2 * wakes.wait(20))
    for _ in range(2):
        with refused(NoGpus, "gpu-driver-no-answer"):
            gpus.processes()  # that nothing is on a GPU, nobody knows
    wakes.set()
    monkeypatch.setattr(gpus, "ANSWER_SECONDS", 10)
    assert gpus.processes() == {10, 11, 12, 13}


def test_without_the_library_of_the_driver_this_very_machine_says_so() -> None:
    """The real binding: there is no NVIDIA driver where the tests run, or there is one and it answers."""
    found: list[gpus.Gpu] | None = None
    with contextlib.suppress(NoGpus):
        found = gpus.gpus()
    assert found != []


def test_memory_is_added_up_by_the_user_whose_container_a_process_is_in(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {
        10: "0::/lxc.payload.alice/user.slice",
        11: "0::/lxc.payload.alice",
        12: "0::/lxc.payload.bob",
        13: "0::/",
    }
    monkeypatch.setattr(machine, "control_group", groups.__getitem__)
    owned = [Container("alice", "Running", "alice", 1, None), Container("bob", "Running", "bob", 2, None)]
    containers = SimpleNamespace(owned=lambda user, uid: None, all=lambda: owned)
    [first, _] = answer_of(usage.UsageReports(lab_of(Config(), containers=containers)).gpus("alice", 1))["gpus"]
    assert first["users"] == [
        {"user": "alice", "memory": 3 << 30},
        {"user": "bob", "memory": None},
        {"user": "other", "memory": 3 << 30},
    ]


@pytest.mark.parametrize(
    ("text", "container"),
    [
        ("0::/lxc.payload.alice/system.slice/ssh.service\n", "alice"),
        ("12:devices:/lxc.payload.alice\n0::/lxc.payload.alice/x\n", "alice"),
        ("0::/lxc.payload.mallory/lxc.payload.alice\n", "mallory"),
        ("4:cpu,cpuacct:/\n0::/labs/lxc.payload.alice/init.scope\n", "alice"),
        ("0::/system.slice/labshelld.service\n", None),
        ("0::/user.slice/xlxc.payload.alice\n", None),
        ("", None),
    ],
)
def test_the_outermost_container_of_a_process_counts(text: str, container: str | None) -> None:
    assert container_of_control_group(text) == container
