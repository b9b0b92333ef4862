"""What the administrator's operations on one user have in common."""

from __future__ import annotations

from labshell.operations.host_accounts import HostAccounts
from labshell.operations.lab import Lab
from labshell.operations.list_users import Users
from labshell.operations.user_ports import UserPorts


class UserOperation:
    """The parts of a host that adding, changing, removing and restoring a user all touch."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._config = lab.config
        self._accounts = lab.accounts
        self._containers = lab.containers
        self._ports = lab.ports
        self._firewall = lab.firewall
        self._users = Users(lab)
        self._user_ports = UserPorts(lab)
        self._host_accounts = HostAccounts(lab)
