"""Containers started, stopped, renamed and deleted; what keeps one from starting."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from labshell.engine import engine_logs
from labshell.engine.client import COPY_SECONDS, WAIT_STEP_SECONDS, Engine
from labshell.engine.disks import Disks
from labshell.engine.errors import EngineError, GpuMissing, Missing, retry_while_busy, translate_errors
from labshell.engine.instances import Instances
from labshell.errors import LabshellError, NoContainer, TryAgain
from labshell.host import machine
from labshell.language import mark

log = logging.getLogger(__name__)
STOP_SECONDS = 30  # a forced stop takes one
IDLE_STEP_SECONDS = 0.3
ACTIONS = {"start": mark("be started"), "stop": mark("be stopped"), "unfreeze": mark("be thawed")}


class Lifecycle:
    """What one engine's containers do as a whole."""

    def __init__(self, engine: Engine, instances: Instances, disks: Disks) -> None:
        self._engine = engine
        self._instances = instances
        self._disks = disks

    def start(self, name: str, timeout_seconds: int) -> None:
        """Start, or thaw if frozen; nothing if it runs already."""
        container = self._instances.get(name)
        if container is None:
            raise NoContainer("container-missing", "There is no container {name}.", name=name)
        action = {"Running": "", "Frozen": "unfreeze"}.get(container.state, "start")
        if not action:
            return
        try:
            on_reserve = (
                action == "start"
                and bool(container.disk_limit)
                and self._disks.make_room(container, ACTIONS["start"])
            )
            try:
                self._change_state(name, {"action": action}, timeout_seconds)
            finally:
                if on_reserve:
                    self._disks.keep_reserve_in_parts(container)
        except LabshellError:
            now = self._instances.get(name)
            if now is not None and now.state == "Running":
                return  # somebody else started it meanwhile: the engine itself does after a reboot
            if action == "start" and machine.remove_left_interface(container.port_on_host):
                # An engine that was killed while it started the container has left its port behind.
                log.warning("an interface that was left is removed", extra={"interface": container.port_on_host})
                self._change_state(name, {"action": action}, timeout_seconds)
                return
            why = self._log_of_start(name)
            log.warning("start failed", extra={"container": name, "lxc_log": why})
            if container.config.get("nvidia.runtime") == "true" and "nvidia" in why.lower():
                raise GpuMissing(
                    "gpu-start-failed", "The container cannot be started: the host's NVIDIA container tools fail."
                ) from None
            raise

    def _log_of_start(self, name: str) -> str:
        """The end of what liblxc wrote: the engine's own message on a failed start says nothing."""
        try:
            return self._engine.content("instances", name, "logs", "lxc.log").body.decode(errors="replace")[-2000:]
        except EngineError:
            return ""

    def stop(self, name: str, timeout_seconds: int, *, force: bool = False) -> None:
        """Shut down cleanly within the limit, or at once with `force`; nothing if it is stopped.

        TryAgain if a clean shutdown took longer: the container still runs then.
        """
        container = self._instances.get(name)
        if container is None or container.state == "Stopped":
            return
        if container.state == "Frozen":
            self._change_state(name, {"action": "unfreeze"}, timeout_seconds)
        body = {"action": "stop", "force": force, "timeout": timeout_seconds}
        try:
            self._change_state(name, body, timeout_seconds + WAIT_STEP_SECONDS)
        except LabshellError:
            container = self._instances.get(name)
            if container is None or container.state == "Stopped":
                return
            if force:
                raise
            raise TryAgain(
                "shutdown-timeout",
                "The container did not shut down within {seconds} seconds and is still running. Use "
                "`--force` to force stop it.",
                seconds=timeout_seconds,
            ) from None

    @retry_while_busy
    def _change_state(self, name: str, body: dict[str, Any], timeout_seconds: int) -> None:
        with translate_errors(name, ACTIONS[body["action"]]):
            self._engine.put("instances", name, "state", body=body, seconds=timeout_seconds)

    @retry_while_busy
    def delete(self, name: str) -> None:
        """Make sure that there is no such container: stopped by force first if it runs."""
        self.stop(name, STOP_SECONDS, force=True)
        with translate_errors(name, "be deleted"), contextlib.suppress(Missing):
            self._engine.delete("instances", name)
        engine_logs.remove(self._engine.path, name)

    def rename(self, name: str, new_name: str) -> None:
        """Give a stopped container another name."""
        with translate_errors(name, "be renamed"):
            self._engine.post("instances", name, body={"name": new_name})

    def wait_until_idle(self, name: str) -> None:
        """Until the engine is at nothing any more with this container, after a daemon that did not wait for it."""
        deadline = time.monotonic() + COPY_SECONDS
        with translate_errors(name, "be read"):
            while self._is_busy(name):
                if time.monotonic() > deadline:
                    raise TryAgain(
                        "container-busy", "The container is busy with something else; try again in a moment."
                    )
                time.sleep(IDLE_STEP_SECONDS)

    def _is_busy(self, name: str) -> bool:
        operations = self._engine.read("operations", recursion="1")
        return any(
            url.rpartition("/")[2] == name
            for operation in operations.get("running") or []
            for url in (operation.get("resources") or {}).get("instances") or []
        )
