"""A researcher's public keys: one step for the host's account and the container."""

from __future__ import annotations

import json

import pytest
from testhost import Host

pytestmark = pytest.mark.root


def test_a_key_is_added_and_removed_on_the_host_and_in_the_container_together(host: Host, guest: str) -> None:
    key = host.client.make_key("second-laptop")
    public = key.with_suffix(".pub").read_text()
    port = host.ssh_port(guest)
    assert host.client.ssh(guest, "status", key=key).returncode == 255
    host.client.ssh(guest, "run echo '# mine' >> ~/.ssh/authorized_keys", check=True)
    assert len(json.loads(host.client.ssh(guest, "keys add --json", input=public, check=True).stdout)) == 2
    assert len(json.loads(host.client.ssh(guest, f"keys add --json {public}", check=True).stdout)) == 2
    assert host.client.ssh(guest, "status", key=key).returncode == 0
    assert host.client.ssh(guest, "hostname", port=port, key=key).stdout == f"{guest}\n"
    host.client.ssh(guest, "keys remove 1", key=key, check=True)
    assert host.client.ssh(guest, "status").returncode == 255
    assert host.client.ssh(guest, "hostname", port=port).returncode == 255
    assert "# mine" in host.client.ssh(guest, "run cat .ssh/authorized_keys", key=key, check=True).stdout
    done = host.client.ssh(guest, "keys remove 1", key=key)
    assert done.returncode == 2
    assert "last key" in done.stderr
    assert host.client.ssh(guest, "status", key=key).returncode == 0


def test_options_that_make_a_key_weaker_count_on_the_host_in_the_container_and_through_proxy(
    host: Host, guest: str
) -> None:
    port = host.ssh_port(guest)
    here, elsewhere = host.client.make_key("here"), host.client.make_key("elsewhere")
    for key, network in ((here, "198.18.0.0/24"), (elsewhere, "192.0.2.0/24")):
        public = key.with_suffix(".pub").read_text()
        host.client.ssh(guest, "keys add", input=f'from="{network}" {public}', check=True)
    assert host.client.ssh(guest, "status", key=here).returncode == 0
    assert host.client.ssh(guest, "hostname", port=port, key=here).stdout == f"{guest}\n"
    proxy = " ".join(host.client.ssh_argv(guest, "proxy", key=here))
    assert (
        host.client.ssh(
            guest, "hostname", key=here, options=["-o", f"ProxyCommand={proxy}", "-o", f"HostKeyAlias={guest}-inside"]
        ).stdout
        == f"{guest}\n"
    )
    for number in (22, port):
        assert host.client.ssh(guest, "hostname", port=number, key=elsewhere).returncode == 255
    assert json.loads(host.client.ssh(guest, "keys --json").stdout)[1]["options"] == 'from="198.18.0.0/24"'


def test_what_is_no_public_key_is_refused_and_never_logged(host: Host, guest: str) -> None:
    private = host.client.make_key("careless").read_text()
    for text, word in (
        (private, "private key"),
        ("", "empty"),
        ("hello", "not a public key"),
        ('command="id" ssh-ed25519 AAAA', "option command"),
    ):
        done = host.client.ssh(guest, "keys add", input=text)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert word in done.stderr
    secret = private.splitlines()[2]
    assert secret not in host.read("/var/log/labshell/labshelld.log")
    assert len(json.loads(host.client.ssh(guest, "keys --json", check=True).stdout)) == 1


def test_nobody_has_more_keys_than_everything_can_take(host: Host, guest: str) -> None:
    file = f"/etc/labshell/keys/{guest}"
    before = host.read(file)
    host.run(["tee", file], input=before * (65536 // len(before)))
    key = host.client.make_key("one-more").with_suffix(".pub").read_text().strip()
    try:
        done = host.client.ssh(guest, f"keys add {key}")
        sentence = "labshell: These are too many keys: one person's may have 64 KiB together.\n"
        assert (done.returncode, done.stderr) == (2, sentence)
    finally:
        host.run(["tee", file], input=before)


def test_links_planted_in_the_container_lead_a_key_nowhere_on_the_host(host: Host, guest: str) -> None:
    public = host.client.make_key("planted").with_suffix(".pub").read_text()
    host.client.ssh(guest, "run rm -r .ssh; ln -s /etc .ssh", check=True)
    host.client.ssh(guest, "keys add", input=public)
    assert not host.exists("/etc/authorized_keys")
    host.client.ssh(guest, "run rm .ssh; mkdir .ssh; mkfifo .ssh/authorized_keys", check=True)
    done = host.client.ssh(guest, "keys add", input=public, timeout=90)
    assert "Traceback" not in done.stderr
