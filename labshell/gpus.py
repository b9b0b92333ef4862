"""The host's GPUs, through NVML: how busy they are, and which process of the host uses which.

The only module that knows NVML. Its library is loaded when it is first asked for, and a host without a driver is
a normal host.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pynvml

from labshell.errors import LabshellError

_lock = threading.Lock()
NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


@dataclass(frozen=True)
class GpuProcess:
    """One process on one GPU: its id as the host counts, and the GPU memory it holds, in bytes if known."""

    pid: int
    memory: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU just now: percent, bytes, degrees Celsius; None where the driver or the model does not say."""

    index: int
    model: str
    utilization: int | None
    memory_used: int | None
    memory_total: int | None
    temperature: int | None
    processes: tuple[GpuProcess, ...] = ()


class NoGpus(LabshellError):
    """There is nothing to read; the sentence says why."""


def gpus() -> list[Gpu]:
    """Every GPU of the host; NoGpus if there is none, or if the driver does not answer."""
    with _driver():
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]


def processes() -> set[int]:
    """The ids, as the host counts, of everything that is on a GPU; none on a host without."""
    try:
        return {process.pid for gpu in gpus() for process in gpu.processes}
    except NoGpus:
        return set()


def driver_version() -> str:
    """The version of the host's driver: "550.54.15". NoGpus if there is none."""
    with _driver():
        return _text(pynvml.nvmlSystemGetDriverVersion())


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    """NVML while the block runs: started afresh each time, since a driver may be replaced under a daemon."""
    with _lock:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value in NO_DRIVER:
                raise NoGpus("This host has no NVIDIA GPU, or its driver is not loaded.") from error
            raise NoGpus("The host's NVIDIA driver does not answer: {why}.", why=_reason(error)) from error
        try:
            yield
        except pynvml.NVMLError as error:
            raise NoGpus("The host's NVIDIA driver does not answer: {why}.", why=_reason(error)) from error
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _known(pynvml.nvmlDeviceGetMemoryInfo, handle)
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
