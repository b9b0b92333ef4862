"""The files we ship, tested as they lie: sshd's drop-in, the units, tmpfiles, the configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from testhost import TREE, Host

from labshell import language
from labshell.config import Config, load

pytestmark = pytest.mark.root

CLOSED = {
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "allowtcpforwarding": "no",
    "authenticationmethods": "publickey",
    "authorizedkeysfile": "/etc/labshell/keys/%u",
    "authorizedkeyscommand": "none",
    "authorizedprincipalsfile": "none",
    "chrootdirectory": "none",
    "disableforwarding": "yes",
    "exposeauthinfo": "yes",
    "forcecommand": "/opt/labshell/bin/labshell --ssh",
    "gatewayports": "no",
    "gssapiauthentication": "no",
    "hostbasedauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "maxsessions": "4",
    "passwordauthentication": "no",
    "permitemptypasswords": "no",
    "permitlisten": "none",
    "permitopen": "none",
    "permittty": "yes",
    "permittunnel": "no",
    "permituserenvironment": "no",
    "permituserrc": "no",
    "trustedusercakeys": "none",
    "x11forwarding": "no",
}


def sshd_settings(host: Host, user: str) -> dict[str, list[str]]:
    """What sshd would do for this user, by keyword."""
    settings: dict[str, list[str]] = {}
    for line in host.run(["sshd", "-T", "-C", f"user={user},host=x,addr=192.0.2.1"]).stdout.splitlines():
        keyword, _, value = line.partition(" ")
        settings.setdefault(keyword, []).append(value)
    return settings


def test_sshd_closes_every_door_but_labshell_to_a_researcher(host: Host, alice: str) -> None:
    settings = sshd_settings(host, alice)
    assert {keyword: settings.get(keyword, ["none"])[0] for keyword in CLOSED} == CLOSED


def test_sshd_takes_a_researchers_language_and_no_other_variable(host: Host, alice: str) -> None:
    settings = sshd_settings(host, alice)
    assert sorted(settings["acceptenv"]) == sorted(language.LOCALE_NAMES)
    emptied = {item.removesuffix("=") for item in settings["setenv"]}
    assert emptied == {
        "BASH_ENV",
        "ENV",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PYTHONHOME",
        "PYTHONINSPECT",
        "PYTHONPATH",
        "PYTHONSTARTUP",
    }


def without_exceptions(settings: dict[str, list[str]]) -> dict[str, list[str]]:
    """The settings but for the two that sshd has for everybody or for nobody."""
    return {
        keyword: value
        for keyword, value in settings.items()
        if keyword not in ("maxstartups", "permituserenvironment")
    }


def test_sshd_treats_everybody_else_as_without_labshell(host: Host, alice: str) -> None:
    drop_in = "/etc/ssh/sshd_config.d/00-labshell.conf"
    with_labshell = without_exceptions(sshd_settings(host, "nobody"))
    host.run(["mv", drop_in, "/etc/ssh/aside"])
    try:
        without = without_exceptions(sshd_settings(host, "nobody"))
        assert without_exceptions(sshd_settings(host, alice)) == without  # the drop-in alone makes the difference
    finally:
        host.run(["mv", "/etc/ssh/aside", drop_in])
    assert with_labshell == without
    assert without_exceptions(sshd_settings(host, alice)) != without


def test_what_follows_the_drop_in_is_not_conditional(host: Host) -> None:
    host.run(["bash", "-c", "echo 'MaxAuthTries 5' >/etc/ssh/sshd_config.d/50-site.conf"])
    try:
        assert sshd_settings(host, "nobody")["maxauthtries"] == ["5"]
    finally:
        host.run(["rm", "/etc/ssh/sshd_config.d/50-site.conf"])


def units() -> list[str]:
    return sorted(path.name for path in (TREE / "etc/systemd").iterdir())


def test_the_units_are_what_systemd_expects(host: Host) -> None:
    paths = [f"/etc/systemd/system/{name}" for name in units()]
    assert len(paths) == 4
    verified = host.run(["systemd-analyze", "verify", "--man=no", *paths], check=False)
    complaints = [line for line in verified.stderr.splitlines() if "labshell" in line]
    assert (verified.returncode, complaints) == (0, [])


GPU_TOOLS = {
    "nvidia-modprobe": "-u -c 0",
    "nvidia-container-cli": "--load-kmods info",
    "nvidia-ctk": "system create-dev-char-symlinks --create-all",
}


@pytest.mark.parametrize("installed", [list(GPU_TOOLS), ["nvidia-modprobe"], []], ids=["all", "one", "none"])
@pytest.mark.parametrize("status", [0, 1])
def test_gpus_are_prepared_by_every_tool_there_is(tmp_path: Path, installed: list[str], status: int) -> None:
    """With stand-ins for NVIDIA's tools: what is called, and that one that fails does not keep the others."""
    called = tmp_path / "called"
    for tool in installed:
        path = tmp_path / tool
        path.write_text(f'#!/bin/sh\necho "{tool} $*" >> {called}\nexit {status}\n')
        path.chmod(0o755)
    argv = ["/bin/sh", str(TREE / "etc/prepare-gpus")]
    done = subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == (status if installed else 0)
    assert done.stderr == "".join(f"failed: {tool} {GPU_TOOLS[tool]}\n" for tool in installed if status)
    calls = called.read_text().splitlines() if called.exists() else []
    assert calls == [f"{tool} {GPU_TOOLS[tool]}" for tool in installed]


def test_the_daemon_is_confined(host: Host) -> None:
    unit = "/etc/systemd/system/labshelld.service"
    shown = host.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit]).stdout
    exposure = re.search(r"Overall exposure level.*?: ([0-9.]+)", shown)
    assert exposure is not None
    assert float(exposure.group(1)) < 3


def test_tmpfiles_makes_the_folders_with_their_modes(tmp_path: Path) -> None:
    for name in ("passwd", "group"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text("root:x:0:0::/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    argv = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(TREE / "etc/tmpfiles.d/labshell.conf")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes["run/labshell"] == 0o755
    assert modes["run/xtables.lock"] == 0o600
    assert modes["var/lib/labshell"] == 0o700
    assert modes["public/ports"] == 0o755


def test_the_configuration_file_shows_every_key_with_its_default(tmp_path: Path) -> None:
    shipped = TREE / "etc/labshell.toml"
    assert load(shipped) == Config()
    uncommented = tmp_path / "labshell.toml"
    uncommented.write_text(re.sub(r"^#(\w+ = )", r"\1", shipped.read_text(), flags=re.MULTILINE))
    assert uncommented.read_text() != shipped.read_text()
    assert load(uncommented) == Config()
