"""Every command that the documents show, run as they show it: the administrator's on the gateway, a user's on a laptop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from testhost import CACHE, ENVIRONMENT, TREE, Host

pytestmark = pytest.mark.root

# Commands that change the whole machine; what runs them instead.
ELSEWHERE = {
    "scripts/setup-host": "tests/system/test_setup_and_uninstall.py::test_setting_up_twice_changes_nothing",
    "scripts/quickstart": "tests/system/test_setup_and_uninstall.py::test_quickstart_shows_the_card_and_the_name_of_the_container",
    "scripts/uninstall": "tests/system/test_setup_and_uninstall.py::test_uninstall_takes_everything_away_and_nothing_else",
    "scripts/uninstall --keep-containers": "tests/system/test_setup_and_uninstall.py::test_uninstall_can_leave_the_containers_and_whose_ports_were_whose",
    "scripts/test": ".ci/run",
}
# What a test host has not got: systemd as process 1, somebody who types, and a wish to download a Debian.
STOP = "stop_by_hand labshelld"
START = "start_by_hand labshelld /opt/labshell/venv/bin/labshelld; wait_until 20 labshell-admin list"
HERE = {
    "systemctl restart labshelld": f". {TREE}/scripts/steps.bash; {STOP}; {START}",
    "journalctl -u labshelld": "cat /var/log/labshell/labshelld.log",
    "remove-user doc-alice": "remove-user doc-alice --yes --no-archive",
    "remove-user doc-bob": "remove-user doc-bob --yes",
    "lxc publish": "lxc publish --compression none",
    "lxc exec lab-template -- bash": "until lxc exec lab-template -- systemctl is-active multi-user.target; do sleep 1; done",
    "scripts/build-template": f"scripts/build-template --name built --rootfs $(ls -t {CACHE}/rootfs-*.tar | head -1)",
    "ARCHIVE": "/var/lib/labshell/archive/doc-bob-*.tar.gz",
    "class.csv": "/tmp/class.csv",
    "drain --message": "drain --message x; true --message",  # everybody's container would be stopped
}
PEOPLE = ("alice", "bob", "carol", "dan", "erin", "frank")
MADE = ("lab-template", "built", "homepage", "lab-published")


def commands(document: str) -> list[str]:
    """The lines of a document's blocks, without comments; what begins with a blank is a picture or an answer."""
    text = (TREE / document).read_text()
    lines = "".join(re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [line.partition(" # ")[0].rstrip() for line in lines if line.strip() and not line[0].isspace()]


@pytest.fixture
def desk(host: Host) -> Iterator[Path]:
    """A folder with the public keys of people who are there for the documents only."""
    for name in PEOPLE:
        host.client.make_key(f"doc-{name}")
    erin = host.client.make_key("doc-erin").with_suffix(".pub").read_text()
    host.run(["tee", "/tmp/class.csv"], input=f"name,key,cpu\ndoc-erin,{erin.strip()},1\n")
    with host.configured("idle_stop_days = 7"):
        yield host.client.folder
    host.admin("undrain")
    for name in PEOPLE:
        host.admin("remove-user", f"doc-{name}", "--yes", "--no-archive", check=False)
    for name in MADE:
        host.run(["lxc", "delete", "--force", name], check=False)
    host.run(["lxc", "image", "delete", "lab-image"], check=False)
    host.run(["bash", "-c", "rm -f /var/lib/labshell/archive/doc-*"])


@pytest.mark.parametrize("document", ["README.md", "docs/admin-guide.md"])
def test_the_administrators_commands_work_as_they_are_shown(host: Host, desk: Path, document: str) -> None:
    shown = [command for command in commands(document) if command not in ELSEWHERE]
    assert len(shown) > 3
    for command in shown:
        assert not command.startswith("sudo ")
        line = re.sub(rf"\b({'|'.join(PEOPLE)})\b", r"doc-\1", command)
        line = re.sub(r"(doc-\w+\.pub)", rf"{desk}/\1", line)
        for words, here in HERE.items():
            line = line.replace(words, here)
        done = host.run(["bash", "-euc", f"cd {TREE}; {line}"], timeout=300)
        assert not re.search(
            r"^Traceback", done.stdout + done.stderr, re.MULTILINE
        )  # the journal's are within a line


def test_the_chinese_guide_shows_the_same_commands_in_the_same_order() -> None:
    english = iter(commands("docs/user-guide.md"))
    assert [command for command in commands("docs/user-guide.zh-CN.md") if command not in english] == []


@pytest.fixture
def laptop(host: Host, alice_port: int, tmp_path: Path) -> Path:
    """Alice's home on her laptop, with the files that the guide speaks of."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    (home / "figures").mkdir()
    (home / "data.csv").write_text("1,2\n")
    (home / ".ssh/id_ed25519").write_text((host.client.folder / "alice").read_text())
    (home / ".ssh/id_ed25519").chmod(0o600)
    (home / ".ssh/config").write_text("StrictHostKeyChecking accept-new\n\n")  # where the guide says: compare
    (home / "new.pub").write_text(host.client.make_key("new").with_suffix(".pub").read_text())
    (home / "hosts").write_text(f"127.0.0.1 localhost\n{host.client.gateway} {name_of(host)}\n")
    host.client.ssh("alice", "run touch result.csv", check=True)
    assert alice_port
    return home


def name_of(host: Host) -> str:
    return host.run(["hostname"]).stdout.strip()


def test_the_researchers_commands_work_as_they_are_shown(host: Host, laptop: Path, alice_port: int) -> None:
    shown = commands("docs/user-guide.md")
    assert len(shown) > 20
    mount = f"mount --bind {laptop} /root; mount --bind {laptop}/hosts /etc/hosts; cd"
    for command in shown:
        line = command.replace("gpu1", name_of(host)).replace("20010", str(alice_port))
        argv = ["unshare", "--mount", "bash", "-euc", f"{mount}; {line}"]
        if line.startswith("ssh -t "):
            run_on_a_terminal(host.client.argv(argv), command)
        else:
            done = host.client.run(argv, env=ENVIRONMENT)
            assert "Traceback" not in done.stdout + done.stderr
    assert (laptop / "result.csv").exists()
    files = host.client.ssh("alice", "run ls; rm -r data.csv result.csv figures", check=True).stdout.split()
    assert files == ["data.csv", "figures", "result.csv"]


def run_on_a_terminal(argv: list[str], command: str) -> None:
    """A command that opens a shell in the container: there is a prompt, and `exit` ends it."""
    child = pexpect.spawn(argv[0], argv[1:], env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8", timeout=30)
    child.expect(r"alice:.*[#$] ")
    child.sendline("exit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, command
