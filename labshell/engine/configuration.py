"""What a container may use: its limits, GPUs and mounts, changed as a whole and put back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labshell.engine import denied_calls, records
from labshell.engine.addresses import connect
from labshell.engine.client import Engine
from labshell.engine.disks import Disks
from labshell.engine.errors import translate_errors
from labshell.engine.network import Network
from labshell.engine.proxies import drop_own
from labshell.model.settings import disk_size, engine_config, engine_devices, replaced_devices

VOLATILE = "volatile."  # how the keys begin that are the engine's own
NOT_TAKEN_OVER = {"eth0", "root"}  # devices


class Configuration:
    """Config and devices of one engine's containers."""

    def __init__(self, engine: Engine, network: Network, disks: Disks, *, nvidia_runtime: bool) -> None:
        self._engine = engine
        self._network = network
        self._disks = disks
        self._nvidia_runtime = nvidia_runtime

    def apply(self, name: str, settings: Mapping[str, str]) -> None:
        """Make the container what `settings` say; what they do not mention stays. A running one changes at once.

        Only nesting waits for the next start.
        """
        size = disk_size(settings)
        self._disks.check_limit(name, size or "")

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], root: dict[str, str]) -> None:
            config |= engine_config(settings, nvidia_runtime=self._nvidia_runtime)
            if "expires" in settings:
                config[records.EXPIRES] = settings["expires"].replace("none", "")
            if "gpus" in settings:
                config[records.GPUS_ASIDE] = ""
            for device in [device for device in devices if device.startswith(replaced_devices(settings))]:
                del devices[device]
            devices |= engine_devices(settings)
            if size is not None:
                devices["root"] = {**root, "size": size} if size else {k: v for k, v in root.items() if k != "size"}

        if size is not None:
            self._disks.free_reserve_if_full(name)  # or the engine could not note the new limit on it
        self._engine.rewrite(name, change)
        if size:
            self._disks.keep_reserve_unless_full(name)

    def deny_calls(self, name: str) -> None:
        """Have a stopped container start without the system calls that none may make."""

        with translate_errors(name, "be read"):
            denied = denied_calls.with_denied_calls(self._engine.read("instances", name)["expanded_config"])

        def change(config: dict[str, str], _: object, __: object) -> None:
            config[denied_calls.KEY] = denied

        self._engine.rewrite(name, change)

    def put_gpus_aside(self, name: str) -> None:
        """Take the GPUs, which are unavailable, away from a stopped container, and remember them."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            aside = {key: device for key, device in devices.items() if device.get("type") == "gpu"}
            for device in aside:
                del devices[device]
            runtime = config.pop("nvidia.runtime", "")
            config[records.GPUS_ASIDE] = json.dumps({"devices": aside, "runtime": runtime})

        self._engine.rewrite(name, change)

    def bring_gpus_back(self, name: str) -> None:
        """Give a stopped container its GPUs again."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            aside = json.loads(config.pop(records.GPUS_ASIDE))
            devices |= aside["devices"]
            config["nvidia.runtime"] = aside["runtime"]

        self._engine.rewrite(name, change)

    def take_over(self, source: str, target: str, *, only: bool) -> None:
        """Give `target` what `source` has today: limits, GPUs, mounts, own forwards; not its network.

        `only` that, where `target` is the person's of before: what has been taken from them since does not come back.
        Else it is beside what a clone has of its template.
        """
        with translate_errors(source, "be read"):
            old = self._engine.read("instances", source)
        given = {key: value for key, value in old["config"].items() if key.startswith(records.TAKEN_OVER)}
        added = {name: device for name, device in old["devices"].items() if name not in NOT_TAKEN_OVER}
        drop_own(added)
        size = old["expanded_devices"]["root"].get("size")

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], root: dict[str, str]) -> None:
            if only:
                for key in [key for key in config if key.startswith(records.TAKEN_OVER)]:
                    del config[key]
                for name in devices.keys() - NOT_TAKEN_OVER:
                    del devices[name]
                root.pop("size", None)
                devices["root"] = root
            config |= given
            devices |= added
            if size:
                devices["root"] = {**root, "size": size}

        self._engine.rewrite(target, change)

    def give_to(self, name: str, user: str, uid: int, address: str) -> None:
        """Give a container an owner: its marks, an address of its own, and safe settings."""
        gone = dict.fromkeys((records.KEPT, records.ARCHIVED, records.RESTORING), "")
        marks = {**records.SAFE_CONFIG, **records.owned_by(user, uid), records.PREPARED: "true", **gone}
        del marks["security.nesting"]  # as it was

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            config.update({**marks, denied_calls.KEY: denied_calls.with_denied_calls(config)})
            connect(self._network, config, devices, address)

        self._engine.rewrite(name, change)

    def read(self, name: str) -> dict[str, Any]:
        """Config and devices as they are now, for put_back().

        Nothing of the engine's own but the hardware address, which is another one after a rebuild: it has the lease
        of the IPv4 address, which the DHCP server gives to no other for an hour.
        """
        with translate_errors(name, "be read"):
            found = self._engine.read("instances", name)
        config = {
            key: value
            for key, value in found["config"].items()
            if not key.startswith(VOLATILE) or key == records.GIVEN_HARDWARE_ADDRESS
        }
        return {"config": config, "devices": found["devices"]}

    def put_back(self, name: str, settings: Mapping[str, Any]) -> None:
        """Config and devices as read() gave them, whatever has become of them since."""

        def change(config: dict[str, str], devices: dict[str, dict[str, str]], _: object) -> None:
            volatile = {key: value for key, value in config.items() if key.startswith(VOLATILE)}
            for table, then in ((config, volatile | settings["config"]), (devices, settings["devices"])):
                table.clear()
                table.update(then)

        self._engine.rewrite(name, change)
