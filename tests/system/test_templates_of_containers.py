"""Templates made of a user's container, brought up to date, and listed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testhost import POOL, Host

pytestmark = pytest.mark.root
PUBLISHED = "from-guest"


@pytest.fixture
def published(host: Host) -> Iterator[str]:
    yield PUBLISHED
    host.run(["lxc", "delete", "--force", PUBLISHED], check=False)


def rootfs(name: str) -> str:
    return f"{POOL}/containers/{name}/rootfs"


def is_empty_or_gone(host: Host, name: str, path: str) -> bool:
    assert host.exists(f"{rootfs(name)}/etc/passwd")
    return host.run(["test", "-s", f"{rootfs(name)}{path}"], check=False).returncode == 1


def test_a_container_becomes_a_template_without_its_keys_and_histories(
    host: Host, guest: str, published: str
) -> None:
    script = "echo secret > ~/.bash_history; echo work > ~/paper; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; sudo touch /opt/tool"
    host.client.ssh(
        guest, f"run {script}; mkdir -p ~/.ssh/sockets/deep; echo secret > ~/.ssh/sockets/deep/one", check=True
    )
    proxy = ["listen=tcp:127.0.0.1:9", "connect=tcp:127.0.0.1:9"]
    host.run(["lxc", "config", "device", "add", guest, "door", "proxy", *proxy])
    before = host.run(["lxc", "config", "show", guest]).stdout
    for command in (["publish", guest, published], ["build", "--name", published], ["update"]):
        assert host.admin("template", *command, "--dry-run").stdout.endswith("Nothing was changed.\n")
    assert published not in host.run(["lxc", "list", "-f", "csv"]).stdout
    done = host.admin("template", "publish", guest, published)
    assert f"home folders of {guest}" in done.stdout
    assert host.run(["lxc", "config", "show", guest]).stdout == before
    found = json.loads(host.run(["lxc", "query", f"/1.0/instances/{published}"]).stdout)
    assert [key for key in found["config"] if key.startswith("user.")] == ["user.labshell.template"]
    assert "proxy" not in {device["type"] for device in found["expanded_devices"].values()}
    assert "ipv4.address" not in found["expanded_devices"]["eth0"]
    assert is_empty_or_gone(host, published, "/etc/machine-id")
    files = host.run(["ls", f"{rootfs(published)}/etc/ssh"]).stdout
    assert "sshd_config" in files
    assert "ssh_host" not in files
    assert f"{published}--new" not in host.run(["lxc", "list", "-f", "csv"]).stdout
    for path in (".bash_history", ".ssh/id_ed25519", ".ssh/authorized_keys", ".ssh/sockets/deep/one"):
        assert is_empty_or_gone(host, published, f"/home/{guest}/{path}")
    assert host.read(f"{rootfs(published)}/home/{guest}/paper") == "work\n"

    host.client.make_key("heir")
    try:
        host.add_user("heir", "--template", published)
        listing = host.client.ssh("heir", "run ls /opt; hostname; ls -a /home/*", check=True).stdout
        assert listing.startswith("tool\nheir\n")
        host.client.ssh(guest, f"rebuild --template {published} --yes", check=True, timeout=120)
        assert host.client.ssh(guest, "run ls /opt", check=True).stdout == "tool\n"
    finally:
        host.remove_user("heir")


def test_a_template_is_updated_by_a_command_inside_and_stays_a_template(host: Host, alice: str) -> None:
    done = host.admin("template", "update", "--run", "touch /opt/updated; ssh-keygen -A >/dev/null")
    assert "The template template is ready." in done.stdout
    rows = {row["template"]: row for row in json.loads(host.admin("template", "list", "--json").stdout)}
    assert rows["template"] == {"template": "template", "state": "stopped", "used": "by default"}
    host.admin("template", "update", "--run", "rm /opt/updated")
    assert is_empty_or_gone(host, "template", "/etc/ssh/ssh_host_ed25519_key")
    failed = host.admin("template", "update", "--run", "echo broken; false", check=False)
    assert failed.returncode == 1
    assert "status 1" in failed.stderr
    assert json.loads(host.admin("template", "list", "--json").stdout)[0]["state"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["publish", "nobody-there", "new"], "There is no container nobody-there"),
        (["publish", "alice", "template"], "There is a container template already"),
        (["publish", "alice", "a/b"], "cannot be the name of a template"),
        (["update", "--name", "alice"], "is a user's container"),
        (["update", "--name", "none-such"], "There is no template none-such"),
        (["build", "--name", "template"], "There is a container template already"),
    ],
)
def test_a_wrong_request_changes_nothing(host: Host, alice: str, arguments: list[str], sentence: str) -> None:
    before = host.run(["lxc", "list", "--format", "csv", "--columns", "ns"]).stdout
    done = host.admin("template", *arguments, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert sentence in done.stderr
    assert host.run(["lxc", "list", "--format", "csv", "--columns", "ns"]).stdout == before
