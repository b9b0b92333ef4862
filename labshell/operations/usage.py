"""usage and gpus: what one uses oneself, who else is at work and how much. Never what others run."""

from __future__ import annotations

import time

from labshell.host import gpus, machine
from labshell.host.gpus import Gpu
from labshell.model.usage import container_of_control_group, processors_used
from labshell.operations.lab import Lab
from labshell.operations.report import Reports
from labshell.operations.steps import Progress, Steps
from labshell.wire import gateway

SAMPLE_SECONDS = 0.5


class UsageReports:
    """One host's answers to: who uses what?"""

    def __init__(self, lab: Lab) -> None:
        self._reports = Reports(lab)
        self._containers = lab.containers

    def usage(self, user: str, uid: int) -> Steps[gateway.UsageReport]:
        """The caller's own figures, and the processors and memory of all others, the busiest first."""
        self._containers.owned(user, uid)
        yield Progress("Looking for a moment")
        began, before = time.monotonic(), self._containers.usage_of_all()
        time.sleep(SAMPLE_SECONDS)
        after = self._containers.usage_of_all()
        busy = processors_used(
            {name: used.cpu_seconds for name, used in before.items()},
            {name: used.cpu_seconds for name, used in after.items()},
            time.monotonic() - began,
        )
        others: list[gateway.Neighbour] = [
            {"user": name, "cpu": busy.get(name), "memory": after[name].memory}
            for name in sorted(after, key=lambda name: (-busy.get(name, 0), name))
            if name != user
        ]
        report: gateway.Report = {**self._reports.status(user, uid), "notice": None}
        return {"report": report, "cpu": busy.get(user), "others": others}

    def gpus(self, user: str, uid: int) -> Steps[gateway.GpuReport]:
        """Every GPU, and per user the memory their processes hold on it."""
        self._containers.owned(user, uid)
        yield from ()
        try:
            found = gpus.gpus()
        except gpus.NoGpus as error:
            return {"why_none": {"sentence": error.sentence, "values": error.values}, "gpus": []}
        owners = {container.name: container.owner for container in self._containers.all() if container.owner}
        return {"why_none": None, "gpus": [self._shown(gpu, owners) for gpu in found]}

    def _shown(self, gpu: Gpu, owners: dict[str, str]) -> gateway.Gpu:
        """A GPU with its processes added up by user: the host's process id leads to the container's control group."""
        held: dict[str, int | None] = {}
        for process in gpu.processes:
            container = container_of_control_group(machine.control_group(process.pid))
            owner = owners.get(container or "", "other")
            known = [memory for memory in (held.get(owner), process.memory) if memory is not None]
            held[owner] = sum(known) if known else None
        return {
            "index": gpu.index,
            "model": gpu.model,
            "utilization": gpu.utilization,
            "memory_used": gpu.memory_used,
            "memory_total": gpu.memory_total,
            "temperature": gpu.temperature,
            "users": [{"user": name, "memory": memory} for name, memory in sorted(held.items())],
        }
