"""Login sessions inside: systemd-logind runs, also where AppArmor forbids units to mount /proc."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testhost import Host, wait_until

from labshell.engine.identity import UNITS_DROP_IN, UNITS_FILE

pytestmark = pytest.mark.root
BROKEN = "/run/systemd/system/systemd-logind.service.d/broken.conf"
BREAK = (
    f"mkdir -p {BROKEN.rpartition('/')[0]}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestart=no\\n' > {BROKEN}; "
    "systemctl daemon-reload; systemctl restart systemd-logind; true"
)
MEND = f"rm {BROKEN}; systemctl daemon-reload; systemctl start systemd-logind"


def inside(host: Host, script: str) -> str:
    return host.run(["lxc", "exec", "guest", "--", "sh", "-c", script]).stdout


def bad_checks(host: Host) -> dict[str, Any]:
    found = json.loads(host.client.ssh("guest", "doctor --json").stdout)
    return {item["check"]: item["finding"]["sentence"] for item in found if item["result"] != "good"}


def test_a_login_through_the_port_has_a_session_and_a_user_manager(host: Host, guest: str) -> None:
    port = host.ssh_port(guest)
    shown = "echo $XDG_RUNTIME_DIR; loginctl --no-legend list-sessions; systemctl --user is-active default.target"
    lines = host.client.ssh(guest, shown, port=port, check=True).stdout.splitlines()
    assert lines[0].startswith("/run/user/")
    assert guest in lines[1].split()
    assert lines[-1] == "active"
    assert inside(host, f"cat {UNITS_FILE}; stat -c '%a %u' {UNITS_FILE}") == f"{UNITS_DROP_IN}644 0\n"
    settings = "ProtectProc ProcSubset ProtectControlGroups ProtectKernelTunables".replace(" ", ",")
    values = inside(host, f"systemctl show --property={settings} systemd-logind systemd-hostnamed | sort -u").split()
    assert values == ["ProcSubset=all", "ProtectControlGroups=no", "ProtectKernelTunables=no", "ProtectProc=default"]


def test_a_container_of_an_earlier_version_gets_the_settings_at_its_next_start(host: Host, guest: str) -> None:
    own = f"{UNITS_FILE.rpartition('/')[0]}/own.conf"
    inside(host, f"rm {UNITS_FILE}; printf '[Service]\\nTasksMax=99\\n' > {own}")
    host.client.ssh(guest, "restart --yes", check=True)
    assert inside(host, f"cat {UNITS_FILE}") == UNITS_DROP_IN
    assert inside(host, f"grep -c TasksMax {own}") == "1\n"
    inside(host, f"rm -r {own.rpartition('/')[0]}; ln -s /etc/passwd {own.rpartition('/')[0]}")
    host.client.ssh(guest, "restart --yes", check=True)
    assert "root:" in inside(host, "cat /etc/passwd")


def test_both_doctors_name_a_failed_logind(host: Host, guest: str) -> None:
    inside(host, BREAK)
    assert "systemd-logind has failed" in bad_checks(host)["Sessions"]
    found = json.loads(host.admin("doctor", "--json", check=False).stdout)
    assert [item["subject"] for item in found if item["id"] == "logind-failed"] == [guest]
    inside(host, MEND)
    wait_until(lambda: "Sessions" not in bad_checks(host))
