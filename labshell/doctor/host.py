"""labshell-admin doctor: the problems of this host, each with an id, its severity and the remedy.

It runs in the administrator's own command and not in the daemon, so that it works when the daemon does not. It
changes nothing. A remedy is a command line that can be typed as it is, but for FILE and PORT.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from labshell.doctor import accounts as accounts_doctor
from labshell.doctor import containers as containers_doctor
from labshell.doctor import kernel as kernel_doctor
from labshell.doctor import network as network_doctor
from labshell.doctor import services as services_doctor
from labshell.doctor.findings import ERROR, Finding
from labshell.errors import LabshellError
from labshell.operations.lab import Lab

ENGINE, NETWORK, SSHD = "engine-away", "network-missing", "sshd-config"


class Check(NamedTuple):
    """One look at the host; where something that it needs has been found to be away, it is left out."""

    name: str
    look: Callable[[Lab], Iterator[Finding]]
    needs: frozenset[str] = frozenset()


OF_ENGINE, OF_NETWORK = frozenset({ENGINE}), frozenset({ENGINE, NETWORK})
CHECKS = (
    Check("daemon", services_doctor.daemon),
    Check("lxcfs", services_doctor.lxcfs),
    Check("boot", services_doctor.at_boot),
    Check("sshd", services_doctor.sshd),
    Check("pool", containers_doctor.pools, OF_ENGINE),
    Check("template", containers_doctor.template, OF_ENGINE),
    Check("network", network_doctor.network, OF_ENGINE),
    Check("rules", network_doctor.rules, OF_NETWORK),
    Check("foreign-rules", network_doctor.redirections, OF_NETWORK),
    Check("accounts", accounts_doctor.accounts),
    Check("keys", accounts_doctor.keys),
    Check("sshd-users", accounts_doctor.sshd, frozenset({SSHD, "sshd-away"})),
    Check("ports", accounts_doctor.ports),
    Check("services", accounts_doctor.services, OF_ENGINE),
    Check("users", containers_doctor.missing, OF_ENGINE),
    Check("containers", containers_doctor.each, OF_ENGINE),
    Check("nvidia", services_doctor.nvidia),
)


class HostDoctor:
    """The checks of one host."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def examine(self) -> Iterator[Finding]:
        """Every finding. A check that cannot be made is a finding, too."""
        away: set[str] = set()
        own = (
            Check("engine", lambda lab: services_doctor.engine_away(lab.engine)),
            Check("engine", services_doctor.engine, OF_ENGINE),
            Check("kernel", self._kernel),
        )
        for check in (*own, *CHECKS):
            if away & check.needs:
                continue
            for finding in self._found(check):
                away.add(finding.id)
                yield finding

    def _found(self, check: Check) -> Iterator[Finding]:
        try:
            yield from check.look(self._lab)
        except LabshellError as error:
            words = " ".join(["This could not be looked at:", str(error), error.detail]).strip()
            yield Finding(f"{check.name}-unknown", ERROR, words, "journalctl -u labshelld -e; labshell-admin doctor")

    def _kernel(self, lab: Lab) -> Iterator[Finding]:
        addresses: dict[str, str] = {}
        with contextlib.suppress(LabshellError):  # the engine is away, and no names are known
            addresses = {item.address: item.name for item in lab.containers.all() if item.address}
        yield from kernel_doctor.findings(addresses)
