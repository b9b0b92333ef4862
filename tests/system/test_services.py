"""Containers that belong to no person."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testhost import Host, wait_until

pytestmark = pytest.mark.root

PAGE = "exec perl -MIO::Socket -e 'my $s = IO::Socket::INET->new(Listen => 5, LocalPort => 8080, ReuseAddr => 1); while (my $c = $s->accept) { print $c qq(home page\\n); close $c }'"


@pytest.fixture
def page(host: Host) -> Iterator[str]:
    """A service that answers on port 80 of the gateway."""
    host.admin("add-service", "homepage", "--forward", "80:8080", "--autostart", "--memory", "512MiB")
    host.run(
        [
            "sh",
            "-c",
            f'echo "{PAGE.replace("$", chr(92) + "$")}" > /tmp/page; lxc file push /tmp/page homepage/root/page',
        ]
    )
    host.run(["lxc", "exec", "homepage", "--", "sh", "-c", "setsid sh /root/page >/dev/null 2>&1 </dev/null &"])
    yield "homepage"
    host.admin("remove-service", "homepage", "--yes", check=False)


def fetch(host: Host, port: int = 80) -> str:
    line = f"exec 3<>/dev/tcp/{host.client.gateway}/{port}; cat <&3"
    return host.client.run(["timeout", "5", "bash", "-c", line], check=False).stdout


def test_a_service_is_reached_on_its_port_and_captures_nobody_elses_traffic(
    host: Host, page: str, alice: str
) -> None:
    wait_until(lambda: fetch(host) == "home page\n", 10)
    [row] = json.loads(host.admin("list-services", "--json").stdout)
    assert (row["service"], row["state"], row["forwards"], row["autostart"]) == (page, "running", ["80:8080"], True)
    assert page not in host.admin("list").stdout
    host.run(["iptables-legacy", "-w", "-t", "nat", "-F", "LABSHELL"])
    wait_until(lambda: fetch(host) == "home page\n", 45)
    # The trap of the first field report: a container's own web traffic to somewhere else.
    elsewhere = host.other.address
    listener = ["timeout", "20", "perl", "-MIO::Socket", "-e",
                "my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 80); my $c = $s->accept; print $c qq(the other server\n)"]  # fmt: skip
    with host.other.background(listener):
        wait_until(lambda: "LISTEN" in host.other.run(["ss", "-Hltn", "sport = 80"]).stdout, 5)
        line = f"exec 3<>/dev/tcp/{elsewhere}/80; cat <&3"
        assert host.client.ssh(alice, f"run bash -c '{line}'", check=True).stdout == "the other server\n"


def test_nobody_can_log_in_as_a_service_or_take_its_name_or_port(host: Host, page: str, alice: str) -> None:
    key = host.client.folder / "alice.pub"
    done = host.admin("add-user", page, "--key", str(key), check=False)
    assert done.returncode == 2
    done = host.admin("add-service", "other-page", "--forward", "80:80", check=False)
    assert done.returncode == 2
    assert "has port 80 already" in done.stderr
    assert host.client.ssh(alice, f"rebuild --template {page} --yes").returncode == 2
    assert host.run(["id", page], check=False).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x y", "--forward", "81:80"], "cannot be the name of a service"),
        (["web-page", "--forward", "81"], "is not a forward"),
        (["web-page", "--forward", "81:80", "--forward", "81:81"], "one place only"),
        (["web-page", "--forward", "22:22"], "has port 22 already"),
        (["alice", "--forward", "81:80"], "There is a container or a user alice already"),
        (["web-page", "--forward", "81:80", "--template", "none-such"], "There is no template"),
        (["web-page", "--forward", "81:80", "--cpu", "lots"], "not possible for cpu"),
        (["web-page", "--forward", "81:80", "--mount", "/none-such:/data"], "no folder /none-such"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_changes_nothing(
    host: Host, alice: str, arguments: list[str], sentence: str
) -> None:
    before = host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout
    done = host.admin("add-service", *arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert host.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout == before


def test_a_port_of_a_persons_block_is_not_given_to_a_service(host: Host, alice_port: int) -> None:
    done = host.admin("add-service", "web-page", "--forward", f"{alice_port + 3}:80", check=False)
    assert done.returncode == 2
    assert "is one of alice's" in done.stderr
