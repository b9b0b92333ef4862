"""scripts/setup-host, quickstart and uninstall on a gateway of their own, because they change all of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest
from testhost import Host, running_host

pytestmark = pytest.mark.root

FOREIGN_RULES = """
iptables-legacy -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 198.18.1.2:80
iptables-legacy -t nat -A POSTROUTING -s 198.18.9.0/24 -j MASQUERADE
iptables-legacy -A FORWARD -s 198.18.9.0/24 -j DROP
iptables -A INPUT -p tcp --dport 9 -j DROP
iptables -P FORWARD DROP
nft add table inet site
nft add chain inet site in '{ type filter hook input priority 10; policy accept; }'
nft add rule inet site in tcp dport 23 drop comment '"labshell: not ours, only looks like it"'
"""
OURS = ("/opt/labshell", "/etc/labshell", "/public", "/run/labshell", "/var/lib/labshell/next-uid")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Host]:
    """A machine with firewall rules of its own, set up and with a template."""
    if os.geteuid() != 0:
        pytest.skip("a test host needs root")
    with running_host() as running:
        running.run(["bash", "-euc", FOREIGN_RULES])
        (running.state / "rules-before").write_text(foreign_rules(running))
        running.set_up()
        running.build_template()
        yield running


def foreign_rules(host: Host) -> str:
    """Every rule but the engine's, without counters and times."""
    # Each by name: a table that nothing has asked for yet is not shown.
    names = ("filter", "nat", "mangle", "raw", "security")
    legacy = "".join(host.run(["iptables-legacy-save", "-t", name]).stdout for name in names)
    legacy = re.sub(r"^#.*\n", "", re.sub(r"\[\d+:\d+\]", "", legacy), flags=re.MULTILINE)
    tables = re.split(r"^(?=table )", host.run(["nft", "list", "ruleset"]).stdout, flags=re.MULTILINE)
    counted = "".join(table for table in tables if not table.startswith(("table inet lxd", "table bridge lxd")))
    return legacy + re.sub(r"packets \d+ bytes \d+", "", counted)


def files(host: Host) -> str:
    """What lies where set-up writes, with modes, owners and content; without what changes by itself."""
    listing = (
        r"find /etc /opt/labshell /public /usr/local/sbin -name __pycache__ -prune -o ! -type d "
        r"-printf '%p %m %u:%g %l\n' | sort; "
        "find /etc /public /opt/labshell/bin -type f ! -name '*-' -exec sha256sum {} + | sort"
    )
    return host.run(["bash", "-c", listing]).stdout


def test_setting_up_twice_changes_nothing(fresh: Host) -> None:
    before = files(fresh)
    fresh.set_up()
    assert files(fresh) == before


def test_setting_up_again_keeps_the_administrators_configuration(fresh: Host) -> None:
    fresh.run(["bash", "-c", "echo 'menu_idle_minutes = 7' >>/etc/labshell/labshell.toml"])
    fresh.set_up()
    assert "menu_idle_minutes = 7" in fresh.read("/etc/labshell/labshell.toml")


def useradd(host: Host, name: str) -> None:
    host.run(["useradd", "--create-home", name])
    assert f"{name}:" in host.read("/etc/subuid")
    host.run(["userdel", "--remove", name])


def test_accounts_of_the_hosts_own_can_be_added(fresh: Host) -> None:
    useradd(fresh, "colleague")


def test_a_range_that_left_no_ids_for_accounts_is_repaired_and_its_containers_start(fresh: Host) -> None:
    ranges = fresh.read("/etc/subuid")
    lines = "_lxd:100000:10000001\nroot:1000000:1000000000\n"
    try:
        restart_engine(fresh, lines)
        fresh.add_user("early")
        assert fresh.run(["useradd", "-m", "colleague"], check=False).returncode != 0
        id_map = fresh.run(["lxc", "config", "get", "early", "volatile.idmap.base"]).stdout
        fresh.run(["lxc", "stop", "--force", "early"])
        fresh.set_up()
        useradd(fresh, "colleague")
        restart_engine(fresh, fresh.read("/etc/subuid"))
        fresh.admin("start", "early")
        assert fresh.run(["lxc", "config", "get", "early", "volatile.idmap.base"]).stdout == id_map
        fresh.add_user("later")
    finally:
        fresh.remove_user("early")
        fresh.remove_user("later")
        restart_engine(fresh, ranges)


def restart_engine(host: Host, ranges: str) -> None:
    """The engine afresh with these lines in /etc/subuid and /etc/subgid."""
    for file in ("/etc/subuid", "/etc/subgid"):
        host.run(["tee", file], input=ranges)
    host.steps("stop_by_hand lxd; start_by_hand lxd lxd --group lxd --logfile=/var/log/lxd/lxd.log")
    host.steps("wait_until 60 lxc query /1.0")
    host.restart_daemon()


def test_an_sshd_configuration_with_an_error_is_never_loaded(fresh: Host) -> None:
    sshd = fresh.read("/run/sshd.pid")
    drop_in = fresh.read("/etc/ssh/sshd_config.d/00-labshell.conf")
    fresh.run(["bash", "-c", "echo 'NoSuchKeyword yes' >/etc/ssh/sshd_config.d/99-site.conf"])
    try:
        refused = fresh.script("setup-host", "--wheels", "/var/cache/labshell-test/wheels", check=False)
    finally:
        fresh.run(["rm", "/etc/ssh/sshd_config.d/99-site.conf"])
    assert refused.returncode != 0
    assert "NoSuchKeyword" in refused.stdout
    assert fresh.read("/run/sshd.pid") == sshd
    assert fresh.read("/etc/ssh/sshd_config.d/00-labshell.conf") == drop_in


def test_researchers_can_read_the_program_and_write_none_of_it(fresh: Host) -> None:
    find = ["find", "/opt/labshell", "/etc/labshell", "/public"]
    assert fresh.run([*find, "!", "-type", "l", "!", "-perm", "-o=r"]).stdout == ""
    assert fresh.run([*find, "!", "-type", "l", "-perm", "/022"]).stdout == ""
    assert fresh.run([*find, "!", "-user", "root"]).stdout == ""
    assert "labshell" not in fresh.read("/etc/shells")


def test_quickstart_shows_the_card_and_the_name_of_the_container(fresh: Host) -> None:
    for _ in range(2):  # harmless twice
        shown = fresh.script("quickstart", "--wheels", "/var/cache/labshell-test/wheels").stdout
        port = fresh.ssh_port("demo")
        assert f"ssh -p {port} demo@" in shown
        assert f"-p {port} demo@localhost hostname\ndemo\n" in shown
        assert "\nA user's container works on this host.\n" in shown


def test_uninstall_deletes_nothing_unasked(fresh: Host) -> None:
    before = files(fresh)
    refused = fresh.script("uninstall", check=False)
    assert refused.returncode == 2
    assert "demo" in refused.stdout
    assert files(fresh) == before
    assert fresh.admin("list").stdout.count("demo") == 1


def test_uninstall_can_leave_the_containers_and_whose_ports_were_whose(fresh: Host) -> None:
    port = fresh.ssh_port("demo")
    fresh.run(["lxc", "exec", "demo", "--", "sh", "-c", "echo work > /home/demo/paper"])
    fresh.script("uninstall", "--yes", "--keep-containers")
    assert not fresh.exists("/opt/labshell")
    assert fresh.run(["lxc", "list", "--format", "csv", "--columns", "ns"]).stdout.splitlines() == [
        "demo,RUNNING",
        "template,STOPPED",
    ]
    assert fresh.ssh_port("demo") == port


def test_after_a_new_installation_everybody_gets_their_container_back(fresh: Host) -> None:
    port = fresh.ssh_port("demo")
    fresh.set_up()
    assert "no account" in fresh.admin("list").stdout
    fresh.admin("import-host", "--returning")
    assert fresh.ssh_port("demo") == port
    fresh.admin("stop", "demo")
    fresh.admin("start", "demo")
    assert fresh.admin("enter", "demo", "cat", "/home/demo/paper").stdout == "work\n"
    assert json.loads(fresh.admin("list", "--json").stdout)[0]["problem"] is None


def test_uninstall_takes_everything_away_and_nothing_else(fresh: Host) -> None:
    fresh.admin("remove-user", "demo", "--yes", "--no-archive")
    fresh.script("quickstart", "--wheels", "/var/cache/labshell-test/wheels")
    fresh.admin("add-service", "page", "--forward", "8099:80")
    fresh.run(["lxc", "copy", "template", "foreign"])
    fresh.run(["lxc", "config", "set", "foreign", "user.labshell.template="])
    for _ in range(2):  # harmless twice
        fresh.script("uninstall", "--yes")
        assert foreign_rules(fresh) == (fresh.state / "rules-before").read_text()
        assert [path for path in OURS if fresh.exists(path)] in ([], ["/public"])  # a mount of the test host's
        assert (
            fresh.run(["bash", "-c", "ls -A /public; find /etc /usr/local /opt /root/.ssh -name '*labshell*'"]).stdout
            == ""
        )
        assert fresh.run(["getent", "group", "labshell"], check=False).returncode != 0
        assert fresh.run(["getent", "passwd", "demo"], check=False).returncode != 0
        assert not fresh.exists("/home/demo")
        assert not fresh.exists("/etc/cron.allow")
        assert fresh.run(["lxc", "list", "--format", "csv", "--columns", "n"]).stdout.split() == ["foreign"]
        assert "labshelld" not in fresh.run(["ps", "-eo", "args"]).stdout
