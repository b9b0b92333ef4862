"""New containers: cloned from a template or an image, and copied to become a template."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from labshell.engine import denied_calls, records
from labshell.engine.client import Engine
from labshell.engine.errors import Missing, translate_errors
from labshell.engine.instances import Instances
from labshell.engine.reserve import Reserve
from labshell.errors import UsageError
from labshell.model import addresses


class Clones:
    """Makes containers from others. `pool` is where their disks are; "" for the template's."""

    def __init__(self, engine: Engine, instances: Instances, pool: str) -> None:
        self._engine = engine
        self._instances = instances
        self._network = instances.network
        self._pool = pool
        self._reserve = Reserve(engine)

    def check_template(self, name: str) -> None:
        """Refuse what clones cannot be made from: it must be a stopped container or the alias of an image."""
        template = self._instances.get(name)
        if template is None:
            if not self._is_image(name):
                raise UsageError(
                    "template-missing",
                    "There is no template {name}; make one with: labshell-admin template build",
                    name=name,
                )
        elif template.owner is not None:
            raise UsageError("template-is-user-container", "{name} is a user's container, not a template.", name=name)
        elif template.state != "Stopped":
            raise UsageError(
                "template-running", "The template {name} is running; stop it first: lxc stop {name}", name=name
            )

    def make(self, template: str, name: str, user: str, uid: int | None, address: str) -> None:
        """Copy the template to the stopped container `name` of `user`'s, or without an owner, with a pinned address.

        Everything safe is said here again, whatever the template has, and what leads to the host is left out.
        """
        source, inherited = self._source(template)
        devices = {
            name: {"type": "none"}
            for name, device in inherited["expanded_devices"].items()
            if device["type"] == "proxy"
        }
        devices["root"] = dict(inherited["expanded_devices"].get("root", {"type": "disk", "path": "/"}))
        if self._pool:
            devices["root"]["pool"] = self._pool
        hardware_address = addresses.hardware_address(secrets.token_bytes(3))
        devices["eth0"] = self._network.nic(address, hardware_address)
        # An empty value takes an inherited key away.
        inherited_keys = [key for key in inherited.get("config", {}) if key.startswith(records.LEFT_OUT)]
        config = {
            **dict.fromkeys([*inherited_keys, *records.NEVER_INHERITED], ""),
            **records.SAFE_CONFIG,
            denied_calls.KEY: denied_calls.with_denied_calls(inherited["expanded_config"]),
            **records.owned_by(user, uid),
            records.CLONED_FROM: template,
            records.FORWARDS: "[]",
            records.HARDWARE_ADDRESS: hardware_address,
        }
        body = {
            "name": name,
            "source": source,
            "profiles": inherited.get("profiles", []),
            "config": config,
            "devices": devices,
        }
        with translate_errors(name, "be made"):
            self._engine.post("instances", body=body)

    def copy_for_template(self, source: str, name: str) -> None:
        """Copy a container, running or not, to the stopped container `name`: without address, marks and devices."""
        with translate_errors(source, "be copied"):
            old = self._engine.read("instances", source)
            gone = [key for key in old["config"] if key.startswith(records.LEFT_OUT)]
            devices: dict[str, dict[str, str]] = {key: {"type": "none"} for key in old["devices"]}
            devices["root"] = dict(old["expanded_devices"]["root"])
            devices["eth0"] = self._network.nic(None, addresses.hardware_address(secrets.token_bytes(3)))
            body = {
                "name": name,
                "source": {"type": "copy", "source": source, "instance_only": True},
                "profiles": old["profiles"],
                "config": dict.fromkeys(gone, ""),
                "devices": devices,
            }
            self._engine.post("instances", body=body)
        self._reserve.free(name)

    def _source(self, template: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """What to copy from, in the engine's words, and what a copy would inherit: config, devices, profiles."""
        with translate_errors(template, "be read"):
            if self._is_image(template) and self._instances.get(template) is None:
                profile = self._engine.read("profiles", "default")
                inherited = {
                    "expanded_config": profile["config"],
                    "expanded_devices": profile["devices"],
                    "profiles": ["default"],
                }
                return {"type": "image", "alias": template}, inherited
            inherited = self._engine.read("instances", template)
            return {"type": "copy", "source": template, "instance_only": True}, inherited

    def _is_image(self, alias: str) -> bool:
        with translate_errors(alias, "be read"):
            try:
                self._engine.read("images", "aliases", alias)
            except Missing:
                return False
        return True
