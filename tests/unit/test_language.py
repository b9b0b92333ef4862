"""The catalogues against the code: complete, with the same placeholders, compiled, and no mixture on the screen."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

from labshell import language, shown
from labshell.errors import UsageError
from labshell.shell import answers, card, laptop, mistyped, verbs

PACKAGE = Path(language.__file__).parent
CATALOGUE = PACKAGE / "locale/zh_CN/LC_MESSAGES/labshell.po"
# Whose texts only the administrator reads: in English.
ADMINISTRATORS = {
    "admin.adoption", "admin.answers", "admin.class_list", "admin.containers", "admin.csv_import", "admin.local", "admin.main",
    "admin.options", "admin.tables", "admin.user_card", "admin.users", "config", "doctor.accounts", "doctor.containers", "doctor.host", "doctor.kernel", "doctor.network",
    "doctor.services", "engine.templates", "host.changes", "host.probe", "model.settings", "operations.adoption",
    "operations.archives", "operations.maintenance", "operations.plans", "operations.services", "operations.trial",
    "operations.add_user", "operations.host_accounts", "operations.list_users", "operations.remove_user",
    "operations.restore_user", "operations.set_user", "operations.steps", "operations.user_ports",
}  # fmt: skip
# What carries a text for the person, and which of its arguments that is.
CARRIERS = {
    **dict.fromkeys(["_", "mark", "Progress"], 0),
    **dict.fromkeys(["LabshellError", "UsageError", "NoContainer", "TryAgain", "StillPending", "Crowded", "NotAllowed", "Cancelled"], 1),
    **dict.fromkeys(["Busy", "NoGpus", "NoDriver", "around", "Verb", "translate_errors", "settled"], 1),
}
# Words that are the same in every language: names of ours, of programs, units, what is typed.
NAMES = re.compile(
    r"https?://\S+|SHA256:\S+|ssh-ed25519|[\w.-]+@[\w.-]+|-{1,2}[a-z]+|ssh|scp|VS Code|Remote-SSH: Add New SSH Host|SSH|CPU|GPU|"
    r"KiB|MiB|GiB|UTC|HOST|FILE|NVIDIA|NVML|JSON|DESK|[0-9]+[mhd]\b|proxy|ProxyCommand|alice|bob|gpu1|jupyter|labshell|"
    r"known_hosts|config|before|Debian|A100|[A-Z]{2,}"
)


def texts() -> set[str]:
    """Every text for the person in the code: constants that a carrier is called with."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module in ADMINISTRATORS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                place = CARRIERS.get(name)
                if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                    found.add(node.args[place].value)
    return found


def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="zh_CN", abort_invalid=True)


@pytest.fixture
def chinese() -> Iterator[None]:
    language.use(language.CHINESE)
    yield
    language.use(language.ENGLISH)


def test_every_text_is_translated_and_nothing_else_is() -> None:
    translated = {message.id for message in catalogue() if message.id and message.string and not message.fuzzy}
    assert sorted(texts() - translated) == []
    assert sorted(translated - texts()) == []


def test_a_translation_has_the_placeholders_of_its_text() -> None:
    def fields(text: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}

    wrong = [message.id for message in catalogue() if message.id and fields(message.id) != fields(message.string)]
    assert wrong == []


def test_a_translation_keeps_what_is_typed() -> None:
    """Options and commands stand in the Chinese text as in the English one."""
    typed = re.compile(r"--[a-z]+|\.pub|/etc/[\w/]+|labshell\.toml|port_range|ssh-keygen -t ed25519|iptables-legacy")
    wrong = [m.id for m in catalogue() if m.id and set(typed.findall(m.id)) - set(typed.findall(m.string))]
    assert wrong == []


def test_the_compiled_catalogue_is_that_of_the_text() -> None:
    """After a change: pybabel compile --directory labshell/locale --domain labshell."""
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = read_mo(file)
    assert {m.id: m.string for m in compiled if m.id} == {m.id: m.string for m in catalogue() if m.id}


@pytest.mark.parametrize(
    ("environment", "configured", "wanted"),
    [
        ({}, "", "en"),
        ({}, "zh_CN", "zh_CN"),
        ({"LANG": "zh_CN.UTF-8"}, "", "zh_CN"),
        ({"LANG": "zh_CN.utf8@x"}, "en", "zh_CN"),
        ({"LANG": "zh_CN.GBK"}, "", "en"),
        ({"LANG": "zh_TW.UTF-8"}, "zh_CN", "en"),
        ({"LANG": "C.UTF-8"}, "zh_CN", "zh_CN"),
        ({"LANG": "C", "LC_ALL": "POSIX"}, "", "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "zh_CN", "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh"}, "", "zh_CN"),
        ({"LANG": "../../etc/passwd"}, "../../etc", "en"),
        ({"LANG": "zh_CN.UTF-8" * 10000}, "", "en"),
    ],
)
def test_the_language_is_chosen_from_what_ssh_sends_and_then_from_the_configuration(
    environment: dict[str, str], configured: str, wanted: str
) -> None:
    assert language.choose(environment, configured) == wanted


def test_columns_line_up_with_characters_of_double_width() -> None:
    assert shown.width("状态ab") == 6
    assert shown.padded("状态", 6) + "|" == "状态  |"
    assert shown.width("e\u0301") == 1


STATUS = {
    "user": "alice", "host": "gpu1", "host_port": 22, "menu_idle_minutes": 60, "state": "running", "address": "10.83.0.2",
    "has_ports": True, "port": 20010, "last_port": 20019, "host_key": "ssh-ed25519 DESK", "fingerprint": "SHA256:abc", "uptime_seconds": 90000,
    "cpu_limit": "8", "memory_used": 5 << 30, "memory_limit": "64GiB", "disk_used": 1 << 30, "disk_limit": "200GiB",
    "processes": 31, "host_load": 1.5, "host_processors": 64, "host_memory_used": 1 << 34, "host_memory_total": 1 << 38, "idle_stop_days": 7,
    "kept": "2026-11-23T14:54:49Z", "notice": None,
}  # fmt: skip


MOMENT = "2026-11-23T10:00:00Z"


def screens() -> dict[str, str]:
    """What every verb shows, with everything there is to show."""
    style = card.Style(colour=False)
    stopped = {**STATUS, "state": "stopped", "port": None, "uptime_seconds": None, "memory_used": None}
    forwards = [
        {"port": 20011, "target": 8888, "name": "jupyter", "source": "192.0.2.0/24", "seconds_left": 7200},
        {"port": 20012, "target": 80, "name": None, "source": None, "seconds_left": None},
    ]
    others = [{"user": "bob", "cpu": 1.25, "memory": 1 << 30}] * 30
    gpu = {"index": 0, "model": "NVIDIA A100", "utilization": 50, "memory_used": 1 << 30, "memory_total": 1 << 35,
           "temperature": 50, "users": [{"user": "alice", "memory": 1 << 30}, {"user": "other", "memory": None}]}  # fmt: skip
    finding = {"check": "Keys", "result": "bad", "finding": {"sentence": "You have no key to log in with.", "values": {}},
               "remedy": {"sentence": "Add one: run `keys add`.", "values": {}}}  # fmt: skip
    return {
        "card": card.card(STATUS, style),
        "stopped card": card.card(stopped, style),
        "status": card.status_text(STATUS, style),
        "ports": answers.forwards_text({**STATUS, "forwards": forwards}, style),
        "no ports": answers.forwards_text({**STATUS, "forwards": []}, style),
        "not kept": answers.keep_text(STATUS, style),
        "never stopped": answers.keep_text({**STATUS, "idle_stop_days": 0}, style),
        "idle": answers.keep_text({**STATUS, "stops_at": MOMENT, "held_until": MOMENT, "held_for": "a b"}, style),
        "snapshots": answers.snapshots_text(
            [{"name": "before", "created": "2026-11-23T10:00:00Z", "size": 4096}], style
        ),
        "no snapshots": answers.snapshots_text([], style),
        "no keys": answers.keys_text([], style),
        "usage": answers.usage_text({"report": STATUS, "cpu": 1.0, "others": others}, style),
        "alone": answers.usage_text({"report": STATUS, "cpu": None, "others": []}, style),
        "gpus": answers.gpus_text({"why_none": None, "gpus": [gpu]}, style),
        "doctor": answers.doctor_text([finding, {**finding, "result": "good"}, {**finding, "result": "unknown"}], style),
        "help": "\n".join(line[15:] for line in verbs.help_text().splitlines()),
        "refusal": shown.error(mistyped.after_ssh("frob", "alice@gpu1", "20010", verbs.COMMANDS)).replace("frob", ""),
        "ssh-config": "".join(line for line in laptop.ssh_config(STATUS).splitlines() if line.startswith("#")),
        "error": shown.error(UsageError("snapshot-missing", "You have no snapshot {name}, but these: {names}", name="before", names="a")),
    }


@pytest.mark.parametrize("screen", sorted(screens()))
def test_a_chinese_screen_has_no_english_in_it_and_fits_80_columns(chinese: None, screen: str) -> None:
    text = screens()[screen]
    commands = re.compile("|".join([*map(re.escape, sorted(verbs.BY_NAME, key=len, reverse=True)), "undo", "forget", "create", "add",
                                    "gateway", "host", "VERB"]))  # fmt: skip
    words = re.findall(r"[A-Za-z]{2,}", commands.sub("", NAMES.sub("", text)))
    assert words == []
    assert max(map(shown.width, text.splitlines())) <= 80 or screen in ("refusal", "ssh-config")


@pytest.mark.parametrize("screen", sorted(screens()))
def test_an_english_screen_has_no_chinese_in_it_and_fits_80_columns(screen: str) -> None:
    text = screens()[screen]
    assert text.isascii() or screen == "gpus"
    assert max(map(len, text.splitlines())) <= 80 or screen in ("refusal", "ssh-config")


def test_a_value_of_the_persons_own_is_never_translated(chinese: None) -> None:
    assert "running" in shown.sentence({"sentence": "Deleting {name}", "values": {"name": "running"}})
    message = {
        "sentence": "The container is {state}; try again in a moment.",
        "values": {"state": "running"},
    }
    assert "running" not in shown.sentence(message)
