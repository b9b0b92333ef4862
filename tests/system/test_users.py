"""Adding and removing people, by the administrator's command on a real host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hostile import as_researcher
from testhost import ENVIRONMENT, Host, wait_until

from labshell.model import keys

pytestmark = pytest.mark.root


def everything(host: Host) -> dict[str, str]:
    """What adding a user could change."""
    rules = host.run(["iptables-legacy", "-t", "nat", "-S", "LABSHELL"]).stdout
    return {
        "accounts": host.read("/etc/passwd") + host.read("/etc/group"),
        "containers": host.run(["lxc", "list", "--format", "csv", "--columns", "ns4"]).stdout,
        "files": host.run(["find", "/public/ports", "/etc/labshell/keys", "/home", "-printf", "%p %m %u\n"]).stdout,
        "rules": rules,
    }


def container_run(host: Host, name: str, script: str) -> str:
    return host.run(["lxc", "exec", name, "--", "sh", "-c", script]).stdout


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", "a b", "Alice", "a" * 33, "root", "nobody", "sshd", "template", "a;id", "$(id)", "-x", "a", "1ab", "übung",
     "ab-", "a--b", "ab\n"],
)  # fmt: skip
def test_a_bad_name_gets_one_sentence_and_changes_nothing(host: Host, alice_port: int, name: str) -> None:
    assert alice_port
    before = everything(host)
    key = host.client.make_key("nobody-special").with_suffix(".pub")
    done = host.admin("add-user", "--key", str(key), "--", name, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("labshell-admin: ")
    assert done.stderr.count("\n") == 1
    assert everything(host) == before


def test_a_bad_key_gets_one_sentence_and_changes_nothing(host: Host, alice_port: int, tmp_path: Path) -> None:
    assert alice_port
    private = host.client.make_key("somebody")
    public = private.with_suffix(".pub").read_text()
    before = everything(host)
    for content, word in (
        (private.read_text(), "private key"),
        (public + public.replace("somebody", "other"), "There are 2 keys in this"),
        ("", "empty"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("hello", "not a public key"),
        ('command="id" ' + public, "option command"),
        (public[:40], "damaged"),
    ):
        file = Path("/tmp") / "labshell-test.pub"
        host.run(["tee", str(file)], input=content)
        done = host.admin("add-user", "erin", "--key", str(file), check=False)
        assert done.returncode == 2, content
        assert word in done.stderr
        assert done.stderr.count("\n") == 1
    assert host.admin("add-user", "erin", "--key", "/nowhere", check=False).returncode == 2
    assert everything(host) == before
    host.run(["rm", "/tmp/labshell-test.pub"])


def test_a_bad_template_or_port_gets_one_sentence_and_changes_nothing(
    host: Host, alice_port: int, bob_port: int
) -> None:
    key = str(host.client.make_key("frank").with_suffix(".pub"))
    before = everything(host)
    for options, word in (
        (["--template", "missing"], "no template missing"),
        (["--template", "bob"], "a user's container"),
        (["--template", "../x"], "cannot be the name"),
        (["--port", str(alice_port)], "overlaps the block of alice"),
        (["--port", str(bob_port + 3)], "overlaps the block of bob"),
        (["--port", "22"], "do not lie within"),
        (["--port", "70000"], "do not lie within"),
        (["--memory", "lots"], "possible for memory"),
        (["--cpu", "-1"], "possible for cpu"),
    ):
        done = host.admin("add-user", "frank", "--key", key, *options, check=False)
        assert done.returncode == 2, options
        assert word in done.stderr, options
        assert done.stderr.count("\n") == 1
    assert everything(host) == before


def test_a_running_template_is_refused(host: Host, alice_port: int) -> None:
    assert alice_port
    host.run(["lxc", "copy", "template", "busy"])
    host.run(["lxc", "start", "busy"])
    try:
        wait_until(
            lambda: "RUNNING" in host.run(["lxc", "list", "--format", "csv", "--columns", "s", "^busy$"]).stdout, 20
        )
        key = str(host.client.make_key("frank").with_suffix(".pub"))
        done = host.admin("add-user", "frank", "--key", key, "--template", "busy", check=False)
        assert done.returncode == 2
        assert "is running" in done.stderr
    finally:
        host.run(["lxc", "delete", "--force", "busy"])


def test_a_port_that_something_listens_on_is_refused(host: Host, alice_port: int) -> None:
    assert alice_port
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 24004)); print('on', flush=True); time.sleep(60)"
    )
    key = str(host.client.make_key("frank").with_suffix(".pub"))
    with subprocess.Popen(host.argv(["/usr/bin/python3", "-c", code]), stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        service.stdout.readline()
        done = host.admin("add-user", "frank", "--key", key, "--port", "24000", check=False)
        service.kill()
    assert done.returncode == 2
    assert "listens on port 24004" in done.stderr


def test_a_container_of_that_name_that_is_not_ours_is_never_touched(host: Host, alice_port: int) -> None:
    assert alice_port
    host.run(["lxc", "copy", "template", "henry"])
    host.run(["lxc", "config", "unset", "henry", "user.labshell.template"])
    try:
        key = str(host.client.make_key("henry").with_suffix(".pub"))
        done = host.admin("add-user", "henry", "--key", key, check=False)
        assert done.returncode == 2
        assert "not labshell's" in done.stderr
        assert host.admin("remove-user", "henry", "--yes", check=False).returncode == 2
        assert "henry" in host.run(["lxc", "list", "--format", "csv"]).stdout
    finally:
        host.run(["lxc", "delete", "henry"])


def test_dry_run_shows_the_steps_and_changes_nothing(host: Host, alice_port: int) -> None:
    assert alice_port
    before = everything(host)
    key = str(host.client.make_key("frank").with_suffix(".pub"))
    done = host.admin("add-user", "frank", "--key", key, "--cpu", "1", "--memory", "1GiB", "--dry-run").stdout
    counters = host.read("/var/lib/labshell/next-uid"), host.read("/public/next-port")
    assert "Would clone the template template as the container frank at 10." in done
    assert "cpu 1 processor, memory 1.0 GiB," in done
    assert done.endswith("Nothing was changed.\n")
    plan = json.loads(host.admin("add-user", "frank", "--key", key, "--dry-run", "--json").stdout)
    assert f"Would make the account frank (uid {plan['uid']}) with 1 key: SHA256:" in done
    assert f"Would give frank the ports {plan['port']}-{plan['last_port']}." in done
    uid, port = host.run(["id", "-u", "alice"]).stdout.strip(), alice_port
    gone = host.admin("remove-user", "alice", "--dry-run").stdout
    for words in (f"(uid {uid})", "Would write the archive /", f"Would free the ports {port}-{port + 9}, and keep"):
        assert words in gone
    assert everything(host) == before
    assert (host.read("/var/lib/labshell/next-uid"), host.read("/public/next-port")) == counters
    made = json.loads(host.admin("add-user", "frank", "--key", key, "--json").stdout)
    try:
        assert [made[name] for name in ("uid", "port", "address")] == [plan[name] for name in ("uid", "port", "address")]
        assert made["settings"]["memory"] == plan["settings"]["memory"]
    finally:
        host.remove_user("frank")


def test_a_failed_add_uses_up_neither_uid_nor_ports(host: Host, alice_port: int) -> None:
    assert alice_port
    key = str(host.client.make_key("frank").with_suffix(".pub"))
    plan = host.admin("add-user", "frank", "--key", key, "--dry-run").stdout
    host.run(["lxc", "copy", "template", "hollow"])
    host.run(["lxc", "config", "device", "add", "hollow", "x", "unix-char", "path=/dev/none-such"])
    before = everything(host)
    try:
        done = host.admin("add-user", "frank", "--key", key, "--template", "hollow", check=False)
        assert done.returncode != 0
        assert "at the step" in done.stderr
        assert everything(host) == before
        assert host.admin("add-user", "frank", "--key", key, "--dry-run").stdout == plan
    finally:
        host.run(["lxc", "delete", "hollow"])


@pytest.mark.parametrize("command", [["show"], ["set", "--cpu", "1"], ["remove-user", "--yes"], ["start"], ["stop"]])
@pytest.mark.parametrize("name", ["nobody", "nosuch", "Odd_Name", "x"])
def test_a_name_that_is_no_users_is_said_to_be_none(host: Host, alice_port: int, command: list[str], name: str) -> None:
    assert alice_port
    done = host.admin(*command, name, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("labshell-admin: There is no user ")


@pytest.mark.parametrize("day", ["2020-01-01", "1999-12-31"])
def test_a_last_day_that_is_over_is_refused_before_anything_is_made(host: Host, alice_port: int, day: str) -> None:
    assert alice_port
    before = everything(host)
    key = str(host.client.make_key("frank").with_suffix(".pub"))
    done = host.admin("add-user", "frank", "--key", key, "--expires", day, check=False)
    assert done.returncode == 2
    assert f"{day} is over" in done.stderr
    assert everything(host) == before


@pytest.mark.parametrize(("options", "first_line"), [([], "Your container on "), (["--language", "zh_CN"], "您在 ")])
def test_add_user_ends_with_a_note_to_be_mailed_that_is_true(
    host: Host, alice_port: int, options: list[str], first_line: str
) -> None:
    assert alice_port
    key = host.client.make_key("nora").with_suffix(".pub")
    try:
        text = host.admin("add-user", "nora", "--key", str(key), *options).stdout.partition("To be mailed to nora:\n\n")[2]
        assert text.startswith(first_line)
        name, port = host.run(["hostname"]).stdout.strip(), host.ssh_port("nora")
        assert f" ssh nora@{name}\n" in text
        assert f" ssh -p {port} nora@{name}\n" in text
        for place in (22, port):
            scanned = host.client.run(["ssh-keyscan", "-t", "ed25519", "-p", str(place), host.client.gateway]).stdout
            assert keys.parse(scanned.split(None, 1)[1]).fingerprint in text
        assert "To be mailed" not in host.admin("add-user", "nora", "--key", str(key), *options).stdout
    finally:
        host.remove_user("nora")


def test_adding_a_user_again_is_harmless_and_said(host: Host, alice_port: int) -> None:
    before = everything(host)
    key = str(host.client.folder / "alice.pub")
    done = host.admin("add-user", "alice", "--key", key).stdout
    assert done == "alice is there already; nothing was changed. To change settings: labshell-admin set alice\n"
    assert everything(host) == before
    assert host.ssh_port("alice") == alice_port


def test_adding_a_user_again_with_other_keys_changes_nothing(host: Host, alice_port: int) -> None:
    assert alice_port
    before = host.read("/etc/labshell/keys/alice")
    other = str(host.client.make_key("not-alice").with_suffix(".pub"))
    assert host.admin("add-user", "alice", "--key", other, check=False).returncode == 2
    assert host.read("/etc/labshell/keys/alice") == before


def test_a_missing_port_is_given_by_a_start_and_nobodys_keys_are_replaced_for_it(host: Host, guest: str) -> None:
    other = str(host.client.make_key("not-guest").with_suffix(".pub"))
    before = host.read(f"/etc/labshell/keys/{guest}")
    host.run(["rm", f"/public/ports/{guest}"])
    assert "Run start to complete it" in host.admin("show", guest, check=False).stderr
    done = host.admin("add-user", guest, "--key", other, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "exists already, with other keys" in done.stderr
    assert host.read(f"/etc/labshell/keys/{guest}") == before
    host.admin("start", guest)
    assert host.client.ssh(guest, "hostname", port=host.ssh_port(guest), check=True).stdout == f"{guest}\n"


def test_a_clone_is_safe_and_a_machine_of_its_own(host: Host, alice_port: int, bob_port: int) -> None:
    assert alice_port != bob_port
    for name in ("alice", "bob"):
        about = json.loads(host.run(["lxc", "query", f"/1.0/instances/{name}"]).stdout)
        config, nic = about["expanded_config"], about["expanded_devices"]["eth0"]
        assert config["security.privileged"] == "false"
        assert config["security.nesting"] == "false"
        assert config["security.idmap.isolated"] == "true"
        assert config["security.devlxd"] == "false"
        assert int(config["limits.processes"]) > 0
        assert "boot.autostart" not in config
        filters = ("mac_filtering", "ipv4_filtering", "port_isolation")
        assert all(nic[f"security.{item}"] == "true" for item in filters)
        assert "security.ipv6_filtering" not in nic, "the engine refuses it on a kernel without br_netfilter"
        assert not [key for key in config if key.startswith("raw.")]
        assert container_run(host, name, "hostname; cat /etc/hostname") == f"{name}\n{name}\n"
        assert container_run(host, name, "cut -d: -f2 /etc/shadow | grep -v '^[!*]' | wc -l").strip() == "0"
        assert name in container_run(host, name, "getent passwd 1000")
    for script in (
        "cat /etc/machine-id",
        "cat /etc/ssh/ssh_host_ed25519_key.pub",
        "cat /etc/ssh/ssh_host_ecdsa_key.pub",
    ):
        values = {container_run(host, name, script) for name in ("alice", "bob")}
        assert len(values) == 2
        assert all(len(value) > 30 for value in values)
    maps = {container_run(host, name, "cat /proc/self/uid_map") for name in ("alice", "bob")}
    assert len(maps) == 2


def test_nothing_dangerous_or_personal_in_a_template_reaches_a_clone(host: Host, alice_port: int) -> None:
    assert alice_port
    host.run(["lxc", "copy", "template", "dirty"])
    residue = host.client.make_key("former-admin").with_suffix(".pub").read_text()
    for path in ("/root/.ssh/authorized_keys", "/root/.bash_history", "/home/ubuntu/.ssh/authorized_keys"):
        host.run(["lxc", "file", "push", "--create-dirs", "-", f"dirty{path}"], input=residue)
    shadow = host.run(["lxc", "file", "pull", "dirty/etc/shadow", "-"]).stdout
    opened = shadow.replace("root:*:", "root:$y$j9T$abc$def:")
    assert opened != shadow
    host.run(["lxc", "file", "push", "-", "dirty/etc/shadow"], input=opened)
    host.run(
        [
            "lxc",
            "config",
            "set",
            "dirty",
            "security.privileged=true",
            "raw.lxc=lxc.log.level=1",
            "boot.autostart=true",
        ]
    )
    host.run(
        [
            "lxc",
            "config",
            "device",
            "add",
            "dirty",
            "hole",
            "proxy",
            "listen=tcp:127.0.0.1:9000",
            "connect=tcp:127.0.0.1:22",
        ]
    )
    try:
        host.add_user("olga", "--template", "dirty")
        about = json.loads(host.run(["lxc", "query", "/1.0/instances/olga"]).stdout)
        assert about["expanded_config"]["security.privileged"] == "false"
        assert not [key for key in about["expanded_config"] if key.startswith(("raw.", "boot."))]
        assert not [item for item in about["expanded_devices"].values() if item["type"] == "proxy"]
        assert "former-admin" not in container_run(
            host, "olga", "cat /root/.ssh/* /root/.*history /home/*/.ssh/* || true"
        )
        assert container_run(host, "olga", "getent shadow root | cut -d: -f2") == "!\n"
    finally:
        host.remove_user("olga")
        host.run(["lxc", "delete", "dirty"])


def test_a_template_may_be_the_alias_of_an_image(host: Host, alice_port: int) -> None:
    assert alice_port
    host.run(["lxc", "publish", "template", "--alias", "published", "--compression", "none"], timeout=120)
    try:
        host.add_user("petra", "--template", "published")
        assert host.client.ssh("petra", "hostname", port=host.ssh_port("petra"), check=True).stdout == "petra\n"
    finally:
        host.remove_user("petra")
        host.run(["lxc", "image", "delete", "published"])


def test_no_password_opens_a_container(host: Host, alice_port: int) -> None:
    offered = host.client.run(
        ["ssh", "-F", "none", "-p", str(alice_port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
         "-o", f"UserKnownHostsFile={host.client.folder}/known_hosts", "-o", "PubkeyAuthentication=no", "-v",
         f"alice@{host.client.gateway}", "true"], check=False,
    ).stderr  # fmt: skip
    assert "Permission denied (publickey)" in offered


def test_the_host_account_opens_one_door_only(host: Host, alice_port: int) -> None:
    assert alice_port
    entry = host.run(["getent", "passwd", "alice"]).stdout.strip().split(":")
    assert entry[5:] == ["/home/alice", "/opt/labshell/bin/labshell"]
    assert host.run(["id", "-Gn", "alice"]).stdout == "labshell\n"
    assert host.run(["getent", "shadow", "alice"]).stdout.split(":")[1] in ("*", "!", "!*")
    assert host.run(["stat", "-c", "%U %a", "/home/alice"]).stdout == "root 755\n"
    assert host.run(["find", "/home/alice", "-mindepth", "1"]).stdout == ""
    assert "labshell" not in host.read("/etc/shells")
    assert host.read("/etc/labshell/keys/alice").startswith("restrict,pty ssh-ed25519 ")
    assert "alice" not in host.read("/etc/subuid")


def test_a_uid_is_never_given_twice(host: Host) -> None:
    uids = []
    for _ in range(2):
        host.add_user("ivan")
        uids.append(int(host.run(["id", "-u", "ivan"]).stdout))
        host.remove_user("ivan")
    assert uids[0] < uids[1]


def test_removing_a_user_frees_everything_and_rests_the_ports(host: Host, alice_port: int) -> None:
    assert alice_port
    before = everything(host)
    host.add_user("judy")
    port = host.ssh_port("judy")
    uid = host.run(["id", "-u", "judy"]).stdout.strip()
    with subprocess.Popen(
        host.client.argv(host.client.ssh_argv("judy", tty=True)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as session:
        wait_until(lambda: host.run(["pgrep", "-u", uid], check=False).stdout != "", 20)
        done = host.admin("remove-user", "judy", "--yes", timeout=300)
        session.wait(20)
    assert everything(host) == before
    assert host.run(["pgrep", "-u", uid], check=False).stdout == ""
    archive = done.stdout.split("Archive: ")[1].strip()
    assert "backup/container/rootfs/etc/hostname" in host.run(["tar", "-tzf", archive], timeout=120).stdout
    assert host.run(["stat", "-c", "%a", archive]).stdout == "600\n"
    host.run(["rm", archive])
    assert not host.exists("/var/log/lxd/judy")
    assert str(port) in host.read("/var/lib/labshell/resting-ports.json")
    host.add_user("karl")
    assert host.ssh_port("karl") != port
    host.remove_user("karl")


def test_a_removal_whose_archive_fails_deletes_nothing_and_locks_nobody_out(host: Host, guest: str) -> None:
    host.run(
        ["sh", "-c", "mv /var/lib/labshell/archive /var/lib/labshell/moved; touch /var/lib/labshell/archive"],
        check=False,
    )
    try:
        done = host.admin("remove-user", guest, "--yes", check=False)
        assert done.returncode == 1
        assert "/var/lib/labshell/archive" in done.stderr
        assert host.client.ssh(guest, "run hostname", check=True).stdout == f"{guest}\n"
    finally:
        host.run(
            ["sh", "-c", "rm /var/lib/labshell/archive; mv /var/lib/labshell/moved /var/lib/labshell/archive"],
            check=False,
        )


def test_an_archive_for_which_there_may_be_no_room_is_not_begun(host: Host, guest: str) -> None:
    host.admin("set", guest, "--disk", "8GiB")  # without a limit anywhere the engine counts nothing
    host.recount_disks()
    state = ["lxc", "query", f"/1.0/instances/{guest}/state"]
    wait_until(lambda: json.loads(host.run(state).stdout)["disk"] or {}, 30)
    host.run(["mkdir", "-p", "/var/lib/labshell/archive"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=0700", "none", "/var/lib/labshell/archive"])
    try:
        done = host.admin("remove-user", guest, "--yes", check=False)
    finally:
        host.run(["umount", "/var/lib/labshell/archive"])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "may need" in done.stderr
    assert "--no-archive" in done.stderr
    assert host.client.ssh(guest, "hostname", port=host.ssh_port(guest), check=True).stdout == f"{guest}\n"


def test_removing_somebody_unknown_is_refused(host: Host) -> None:
    done = host.admin("remove-user", "nosuch", "--yes", check=False)
    assert done.returncode == 2
    assert "no user nosuch" in done.stderr
    done = host.admin("remove-user", "alice", check=False)
    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_a_failing_step_is_named_and_everything_before_it_undone(host: Host, alice_port: int) -> None:
    """A template whose init is gone clones well and cannot start."""
    assert alice_port
    host.run(["lxc", "copy", "template", "broken"])
    host.run(["lxc", "file", "delete", "broken/sbin/init"])
    before = everything(host)
    try:
        key = str(host.client.make_key("laura").with_suffix(".pub"))
        done = host.admin("add-user", "laura", "--key", key, "--template", "broken", check=False)
        assert done.returncode == 1
        assert 'failed at the step "Starting the container"' in done.stderr
        assert "has been undone" in done.stderr
        assert everything(host) == before
    finally:
        host.run(["lxc", "delete", "--force", "broken"])


@pytest.mark.parametrize(
    "step", ["Making the account", "Cloning", "identity", "Starting the container", "Installing"]
)
def test_a_daemon_killed_in_the_middle_leaves_what_a_second_run_completes(
    host: Host, alice_port: int, step: str
) -> None:
    assert alice_port
    key = str(host.client.make_key("mary").with_suffix(".pub"))
    with subprocess.Popen(
        host.argv(["labshell-admin", "add-user", "mary", "--key", key]),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as adding:
        assert adding.stdout is not None
        for line in adding.stdout:
            if step in line:
                break
        host.stop_daemon("KILL")
        status = adding.wait(20)
    host.start_daemon()
    assert status == 75 or (step, status) == ("Installing", 0)  # the last steps may have been quicker than we
    host.admin("add-user", "mary", "--key", key)
    assert host.client.ssh("mary", "hostname", port=host.ssh_port("mary"), check=True).stdout == "mary\n"
    host.remove_user("mary")
    assert "mary" not in host.run(["lxc", "list", "--format", "csv"]).stdout


def test_list_and_show_tell_everything_about_a_user(host: Host, alice_port: int, bob_port: int) -> None:
    users = {user["user"]: user for user in json.loads(host.admin("list", "--json").stdout)}
    assert users["alice"]["port"] == alice_port
    assert users["bob"]["port"] == bob_port
    assert users["bob"]["problem"] is None
    assert "alice" in host.admin("list").stdout
    about = json.loads(host.admin("show", "alice", "--json").stdout)
    assert about["rules_are_live"] is True
    assert len(about["keys"]) == 1
    assert str(alice_port) in host.admin("show", "alice").stdout
    assert host.admin("show", "nosuch", check=False).returncode == 2


def test_limits_are_given_to_the_container(host: Host) -> None:
    host.add_user("nina", "--cpu", "1", "--memory", "512MiB", "--processes", "300", "--port", "23450")
    try:
        assert host.ssh_port("nina") == 23450
        assert container_run(host, "nina", "nproc") == "1\n"
        assert "limits.memory: 512MiB" in host.run(["lxc", "config", "show", "nina"]).stdout
        assert 'limits.processes: "300"' in host.run(["lxc", "config", "show", "nina"]).stdout
    finally:
        host.remove_user("nina")


def test_only_root_may_administer(host: Host, alice_port: int) -> None:
    assert alice_port
    done = host.run(
        as_researcher("alice", ["labshell-admin", "list"]),
        check=False,
    )
    assert done.returncode == 77
