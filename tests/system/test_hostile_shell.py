"""The login shell started in every odd way: words, bytes, environment, descriptors, limits, signals, terminals.

The first part starts the installed login shell directly, as sshd would, many times in one go; the rest is ssh.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest
from hostile import FULL, REFUSED, as_researcher
from testhost import ENVIRONMENT, Host, exit_status, wait_until

pytestmark = pytest.mark.root
SHELL = "/opt/labshell/bin/labshell"
LONGEST = 131_071  # bytes that the kernel takes for one argument
# Starts the login shell for each case on standard input and prints how it ended. Latin-1 carries bytes through JSON.
RUNNER = """
import json, os, resource, signal, subprocess, sys, time
for line in sys.stdin:
    case = json.loads(line)
    def prepare():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for name, most in case["limits"].items():
            resource.setrlimit(getattr(resource, name), (most, most))
        for number in case["closed"]:
            os.close(number)
    argv = [word.encode("latin-1") for word in case["argv"]]
    variables = {k.encode("latin-1"): v.encode("latin-1") for k, v in case["environment"].items()}
    process = subprocess.Popen(argv, executable=sys.argv[1], env=variables, preexec_fn=prepare, cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if case["signal"]:
        time.sleep(case["after"])
        process.send_signal(case["signal"])
    try:
        out, err = process.communicate(case["input"].encode("latin-1"), 30)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += b"HANGS"
    print(json.dumps([process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")]), flush=True)
"""
Ended = tuple[int, str, str]


@pytest.fixture(scope="module")
def mallory(host: Host) -> Iterator[str]:
    host.add_user("mallory")
    yield "mallory"
    host.remove_user("mallory")


def case(*argv: str, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "environment": {"HOME": "/home/mallory", "LOGNAME": "mallory", "USER": "mallory", "PATH": "/usr/bin:/bin"},
        "limits": {}, "closed": [], "signal": 0, "after": 0, "input": "",
    }  # fmt: skip
    return usual | {"argv": ["-labshell", *argv]} | more


def started(host: Host, user: str, cases: list[dict[str, Any]]) -> list[Ended]:
    argv = as_researcher(user, ["/usr/bin/python3", "-Ic", RUNNER, SHELL])
    done = host.run(argv, input="\n".join(map(json.dumps, cases)), timeout=300)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def no_leak(ended: Ended) -> None:
    status, out, err = ended
    assert status in {0, 130, *REFUSED} or status < 0, ended
    for word in ("Traceback", "HANGS", 'File "', "uid=", "root:x:", "/opt/labshell/venv"):
        assert word not in out + err, ended
    assert all(character.isprintable() or character == "\n" for character in out + err), ended


WORDS = [
    "", " ", "\n", "\t", "-", "--", "---", "-c", "--help", "--version", "-h", "-i", "-l", "--login", "/bin/sh", "sh", "bash -i",
    "() { :;}; id", "$(id)", "`id`", "${IFS}id", "status;id", "status&&id", "status|id", "status&", "status\nid", "status\rid",
    "status>/tmp/x", "status</etc/passwd", "status #", "status --json --json", "status --json=1", "status extra", "STATUS",
    "status\x00", "status\u200b", "ＳＴＡＴＵＳ", "st\u0430tus", "\ufeffstatus", "\u202estatus", "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m",
    "\xff\xfe", "\x80\x81", "help\x1b[A", "%s%s%s%n", "{user}", "{0.__class__}", "%(user)s", "../../etc/passwd", "*", "?", "~", "~root",
    "ports add 0", "ports add -1", "ports add 65536", "ports add 1e4", "ports add ８０８０", "ports add 80 80 80", "ports add 1_000",
    "ports add 0x50", "ports remove 99999999999999999999", "ports add 8080 --from 0.0.0.0/33", "ports add 8080 --from ::/0",
    "keys add", "keys remove ../x", "keys add ssh-rsa AAAA", "snapshot create ../../x", "snapshot create " + "a" * 300,
    "snapshot restore \x1b[31m", "rebuild", "rebuild --yes=1", "rebuild --template ../x", "language xx", "language zh_CN.UTF-8",
    "keep -5", "keep nan", "keep 1e99", "run", "enter --x", "proxy 1", "sftp -x", "scp", "scp -f /etc/passwd", "scp -t /",
    "rsync --server --sender . /etc", "git-upload-pack '/etc'", "internal-sftp", "/usr/lib/openssh/sftp-server -R",
    "\"", "'", "\\", "'unfinished", "status \"", "a" * 5000, "status " * 1000, "\x01" * 100, "'" * 999,
]  # fmt: skip


# Words that start a program, in the container; it says what it likes.
OF_THE_CONTAINER = {
    "scp",
    "rsync",
    "git-upload-pack",
    "internal-sftp",
    "/usr/lib/openssh/sftp-server",
    "run",
    "proxy",
}


def test_no_words_do_anything_but_what_the_help_says(host: Host, mallory: str) -> None:
    cases = [case("-c", word.replace("\x00", "").encode().decode("latin-1")) for word in WORDS]
    cases += [
        case(*argv)
        for argv in (["-c"], ["-c", "status", "x"], ["-x"], ["--"], ["status"], ["-c", "-c"], ["-ic", "id"])
    ]
    cases += [case("-c", "x" * (LONGEST - 1)), case("-c", "status " + "\xff" * 100_000)]
    ended = started(host, mallory, cases)
    assert len(ended) == len(cases)
    for asked, answer in zip(cases, ended, strict=True):
        if asked["argv"][-1].partition(" ")[0] in OF_THE_CONTAINER:
            continue
        no_leak(answer)
        assert answer[2].count("\n") <= 1, (asked["argv"][1:3], answer)
        assert answer[0] == 0 or answer[1] == "", answer


def test_random_bytes_do_nothing(host: Host, mallory: str) -> None:
    chance = random.Random(7)  # noqa: S311 - an order, not a secret
    count = 500 if FULL else 60
    words = ["".join(map(chr, chance.choices(range(1, 256), k=chance.randint(1, 200)))) for _ in range(count)]
    for ended in started(host, mallory, [case("-c", word) for word in words]):
        no_leak(ended)
        assert ended[0] == 2, ended
        assert ended[1] == ""


def test_no_environment_changes_what_it_does(host: Host, mallory: str) -> None:
    base = case()["environment"]
    variables = {
        "LANG": ["xx_XX.nonsense", "../../etc/passwd", "\xff\xfe", "A" * 10_000, "", "C", "zh_CN.UTF-8\n"],
        "LC_ALL": ["bogus", "%s", "POSIX"],
        "LANGUAGE": ["../../../tmp/evil", "zh:en:" + "x:" * 5000],
        "TERM": ["", "../../evil\x1b[31m", "A" * 10_000, "dumb"],
        "COLUMNS": ["0", "-1", "99999999999", "x"],
        "HOME": ["", "/nonexistent", "/tmp"],
        "USER": ["root", "bob", "\x1b[31m", ""],
        "SSH_CONNECTION": ["", "garbage", "1 2 3 4 5", "\x1b]0;x\x07 1 2 3", "::1 1 ::1 22"],
        "SSH_ORIGINAL_COMMAND": ["id", "rebuild --yes"],
        "SSH_TTY": ["/dev/mem"], "PATH": ["", "/tmp:."], "TZ": ["../../etc/passwd", ":/etc/shadow"],
        "NO_COLOR": ["1"], "FORCE_COLOR": ["1"], "TMPDIR": ["/nonexistent"], "LC_CTYPE": ["\xff"],
    }  # fmt: skip
    cases = [
        case("-c", "status", environment=base | {name: value}) for name in variables for value in variables[name]
    ]
    cases += [case("-c", "status", environment={}), case("-c", "status", environment={"X": "y" * 100_000})]
    for asked, ended in zip(cases, started(host, mallory, cases), strict=True):
        no_leak(ended)
        assert ended[0] == 0, (asked["environment"], ended)
        assert f"{host.ssh_port(mallory)} " in ended[1]


def test_closed_descriptors_and_small_limits_end_in_a_sentence_or_nothing(host: Host, mallory: str) -> None:
    closed = [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
    limits = [{"RLIMIT_NOFILE": most} for most in range(3, 13)]
    limits += [
        {"RLIMIT_FSIZE": 0},
        {"RLIMIT_NPROC": 1},
        {"RLIMIT_CORE": 0},
        {"RLIMIT_STACK": 262_144},
        {"RLIMIT_CPU": 1},
    ]
    cases = [case("-c", "status", closed=which) for which in closed] + [
        case("-c", "status", limits=some) for some in limits
    ]
    for ended in started(host, mallory, cases):
        if "shared libraries" not in ended[2]:  # too few descriptors for any program at all
            no_leak(ended)


def test_a_signal_at_any_moment_leaves_no_trace_and_no_process(host: Host, mallory: str) -> None:
    moments = [number / 200 for number in range(0, 24 if FULL else 12, 1 if FULL else 3)]
    cases = [
        case("-c", verb, signal=number, after=moment)
        for number in (1, 2, 3, 10, 12, 13, 15)
        for moment in moments
        for verb in ("status", "ports add 8080")
    ]
    for ended in started(host, mallory, cases):
        no_leak(ended)
    host.client.ssh(mallory, "ports remove 8080")
    assert json.loads(host.client.ssh(mallory, "ports --json", check=True).stdout) == []
    wait_until(lambda: not host.run(["pgrep", "-u", mallory], check=False).stdout, 15)


def test_endless_and_binary_input_to_the_menu_ends(host: Host, mallory: str) -> None:
    inputs = [
        "\n" * 5000,
        "x" * 2_000_000,
        "\x00" * 1000 + "\n",
        "\xff" * 1000 + "\n",
        "status\n" * 3,
        "\x1b[A\x1b]0;x\x07\n",
        "1\n" * 2,
    ]
    for ended in started(host, mallory, [case(input=given) for given in inputs]):
        no_leak(ended)


# By ssh -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (65_535, 65_535), (3, 500)])
@pytest.mark.parametrize("term", ["xterm", "../../evil\x1b[31m", "x" * 2000])
def test_any_terminal_of_any_size_gets_a_menu_that_ends(
    host: Host, mallory: str, size: tuple[int, int], term: str
) -> None:
    argv = host.client.argv(host.client.ssh_argv(mallory, tty=True))
    child = pexpect.spawn(argv[0], argv[1:], env={**ENVIRONMENT, "TERM": term}, timeout=30, dimensions=size)
    try:
        child.expect(rb"bshell> |Welcome|> ")
        child.send(b"version\r")
        child.expect(b"0\\.\\d")
        child.send(b"quit\r")
        child.expect(pexpect.EOF)
        assert b"Traceback" not in (child.before or b"")
    finally:
        child.close(force=True)


def test_many_sessions_on_one_connection_are_cut_at_the_limit_and_end(host: Host, mallory: str) -> None:
    control = str(host.client.folder / "control")
    shared = ["-o", f"ControlPath={control}"]
    master = host.client.ssh_argv(mallory, options=["-N", "-M", *shared])
    with host.client.background(master):
        wait_until(lambda: host.client.run(["test", "-S", control], check=False).returncode == 0)
        argv = host.client.argv(host.client.ssh_argv(mallory, "status", options=shared))
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        every = [subprocess.Popen(argv, env=ENVIRONMENT, **quiet) for _ in range(30)]  # type: ignore[call-overload]
        statuses = [exit_status(process, 60) for process in every]
    assert statuses.count(0) >= 1
    assert host.client.ssh("mallory", "status").returncode == 0
    wait_until(lambda: not host.run(["pgrep", "-u", mallory], check=False).stdout, 15)


def test_text_of_a_persons_own_drives_nobody_elses_terminal(host: Host, mallory: str) -> None:
    """Whatever a container, a key's comment or a host name says is shown without its control characters."""
    evil = r"\033]0;owned\007\033[2J\342\200\256"
    inside = f"printf '{evil}' > /etc/hostname; printf 'PRETTY_NAME=\"{evil}\"\\n' > /etc/os-release; hostname evil"
    host.client.ssh(mallory, f"run sudo sh -c {json.dumps(inside)}", check=True)
    key = host.client.make_key("evil").with_suffix(".pub").read_text().split()
    host.client.ssh(mallory, "keys", "add", *key[:2], "'\x1b]0;owned\x07\u202e'")
    seen = [host.client.ssh(mallory, verb, timeout=60) for verb in ("status", "keys", "usage", "doctor", "snapshot")]
    seen += [host.admin(*verb, check=False) for verb in (["list"], ["show", mallory], ["usage"], ["doctor"])]
    for done in seen:
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.stdout + done.stderr), done
