"""The host's GPUs, through NVML: how busy they are, and which process of the host uses which.

The only module that knows NVML. Its library is loaded when it is first asked for, and a host without a driver is
a normal host.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from labshell.errors import LabshellError

T = TypeVar("T")
_lock = threading.Lock()
ANSWER_SECONDS = 10
PCI_DEVICES, DISPLAY_CLASS = Path("/sys/bus/pci/devices"), "0x03"
NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


@dataclass(frozen=True)
class GpuProcess:
    """One process on one GPU: its id as the host counts, and the GPU memory it holds, in bytes if known."""

    pid: int
    memory: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU now: percent, bytes, degrees Celsius; None where the driver or the model does not say."""

    index: int
    model: str
    utilization: int | None
    memory_used: int | None
    memory_total: int | None
    temperature: int | None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Installed:
    """One GPU of the host by its names; `index` and `uuid` only where the driver counts it."""

    address: str  # 0000:01:00.0
    model: str = "GPU"
    index: int | None = None
    uuid: str = ""


class NoGpus(LabshellError):
    """There is nothing to read; the sentence says why."""


class NoDriver(NoGpus):
    """This is a host without NVIDIA."""


def gpus() -> list[Gpu]:
    """Every GPU of the host; NoGpus if there is none, or if the driver does not answer."""
    return _in_time(lambda: [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())])


def installed() -> list[Installed]:
    """Every GPU of the host by its names: those of the driver, then those that only the PCI bus has."""
    try:
        named = _in_time(lambda: [_installed(index) for index in range(pynvml.nvmlDeviceGetCount())])
    except NoGpus:
        named = []
    known = [gpu for gpu in named if gpu is not None]
    addresses = {gpu.address for gpu in known}
    return known + [Installed(address) for address in _on_bus() if address not in addresses]


def _installed(index: int) -> Installed | None:
    """None for a GPU that has fallen off the bus."""
    handle = _known(pynvml.nvmlDeviceGetHandleByIndex, index)
    pci = None if handle is None else _known(pynvml.nvmlDeviceGetPciInfo, handle)
    if pci is None:
        return None
    model, uuid = _known(pynvml.nvmlDeviceGetName, handle), _known(pynvml.nvmlDeviceGetUUID, handle)
    return Installed(_text(pci.busId).lower()[-12:], _text(model or "GPU"), index, _text(uuid or ""))


def _on_bus(folder: Path = PCI_DEVICES) -> list[str]:
    """The addresses of all display controllers."""
    found = []
    for path in sorted(folder.glob("*/class")):
        with contextlib.suppress(OSError):
            if path.read_text(encoding="ascii", errors="replace").startswith(DISPLAY_CLASS):
                found.append(path.parent.name)
    return found


def processes() -> set[int]:
    """The ids, as the host counts, of everything that is on a GPU; none on a host without.

    NoGpus if the driver does not answer: then it is unknown.
    """
    try:
        return {process.pid for gpu in gpus() for process in gpu.processes}
    except NoDriver:
        return set()


def driver_version() -> str:
    """The version of the host's driver: "550.54.15". NoGpus if there is none."""
    return _in_time(lambda: _text(pynvml.nvmlSystemGetDriverVersion()))


def _in_time(ask: Callable[[], T]) -> T:
    """What the driver answers. A call into one that hangs never returns, so a thread of its own is left to it."""
    silence = NoGpus(
        "gpu-driver-no-answer",
        "The host's NVIDIA driver does not answer: {why}.",
        why=f"nothing in {ANSWER_SECONDS} seconds",
    )
    if not _lock.acquire(timeout=ANSWER_SECONDS):
        raise silence
    answer: futures.Future[T] = futures.Future()

    def work() -> None:
        try:
            with _driver():
                found = ask()
            answer.set_result(found)
        except Exception as error:  # noqa: BLE001 - for whoever waits
            answer.set_exception(error)
        finally:
            _lock.release()

    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:  # no thread can be had
        _lock.release()
        raise
    try:
        return answer.result(ANSWER_SECONDS)
    except futures.TimeoutError:
        raise silence from None


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    """NVML while the block runs: started afresh each time, since a driver may be replaced under a daemon."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in NO_DRIVER:
            raise NoDriver("gpu-absent", "This host has no NVIDIA GPU, or its driver is not loaded.") from error
        raise NoGpus(
            "gpu-driver-no-answer", "The host's NVIDIA driver does not answer: {why}.", why=_reason(error)
        ) from error
    try:
        yield
    except pynvml.NVMLError as error:
        raise NoGpus(
            "gpu-driver-no-answer", "The host's NVIDIA driver does not answer: {why}.", why=_reason(error)
        ) from error
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = _known(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Gpu(index, "GPU", None, None, None, None)
    memory = _memory(handle)
    utilization = _known(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(
        index=index,
        model=_text(_known(pynvml.nvmlDeviceGetName, handle) or "GPU"),
        utilization=utilization.gpu if utilization else None,
        memory_used=memory.used if memory else None,
        memory_total=memory.total if memory else None,
        temperature=_known(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        processes=_processes(handle),
    )


def _memory(handle: Any) -> Any:
    """As nvidia-smi counts it: without what the driver itself has reserved, where the driver tells that apart."""
    apart = _known(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2))
    return apart or _known(pynvml.nvmlDeviceGetMemoryInfo, handle)


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Compute and graphics processes; one that does both is there once."""
    found = {}
    for ask in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _known(ask, handle) or []:
            found[process.pid] = GpuProcess(process.pid, process.usedGpuMemory)
    return tuple(found[pid] for pid in sorted(found))


def _known(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What the driver answers; None if this model has not got it, or a GPU has fallen off the bus."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None


def _reason(error: pynvml.NVMLError) -> str:
    return str(error).rstrip(".")


def _text(value: str | bytes) -> str:
    """Older versions of the library answer with bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
