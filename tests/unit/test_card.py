"""The card and its relatives: exact, narrow, harmless."""

from __future__ import annotations

import pytest

from labshell import language, shown
from labshell.admin import note
from labshell.shell import answers, card, laptop, menu
from labshell.shell.card import Style

STATUS = {
    "user": "alice", "host": "gpu1.lab.example", "host_port": 22, "state": "running", "address": "10.83.0.2", "has_ports": True, "port": 20010, "last_port": 20019,
    "host_key": "ssh-ed25519 AAAA", "fingerprint": "SHA256:" + "x" * 43, "uptime_seconds": 11100, "cpu_limit": "16", "memory_used": 1 << 33,
    "memory_limit": "64GiB", "disk_used": 123 << 30, "disk_limit": "200GiB", "processes": 4096, "host_load": 63.21, "host_processors": 128,
    "host_memory_used": 400 << 30, "host_memory_total": 512 << 30, "idle_stop_days": 7,
}  # fmt: skip
FORWARD = {"port": 20011, "target": 8888, "name": "jupyter", "source": "192.0.2.0/24", "seconds_left": 7200}
KEY = {"kind": "ssh-ed25519", "fingerprint": "SHA256:" + "x" * 43, "comment": "alice@laptop"}
PLAIN, COLOURED = Style(colour=False), Style(colour=True)
EVIL = "a\x1b[2Jb\nc\u202ed\x9be\u2028f\ud800g"


def everything(status: dict[str, object], style: Style) -> str:
    texts = [
        card.card(status, style),
        card.status_text(status, style),
        answers.forwards_text({**status, "forwards": [FORWARD]}, style),
        answers.keys_text([KEY], style),
    ]
    return "\n".join(texts)


def test_the_lines_to_copy_are_exact() -> None:
    text = card.card(STATUS, PLAIN)
    assert "ssh -p 20010 alice@gpu1.lab.example\n" in text
    assert "scp -P 20010 FILE alice@gpu1.lab.example:\n" in text
    assert "running for 3 h 5 min" in text


def test_everything_fits_80_columns_and_has_no_colour_unless_asked() -> None:
    text = everything(STATUS, PLAIN)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "\x1b[32mrunning\x1b[0m" in everything(STATUS, COLOURED)


@pytest.mark.parametrize("key", [key for key, value in STATUS.items() if isinstance(value, str)])
def test_no_text_from_elsewhere_drives_the_terminal(key: str) -> None:
    status = {**STATUS, key: EVIL}
    for text in (everything(status, PLAIN), laptop.ssh_config(status), laptop.known_hosts(status, [EVIL])):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert text.count("\n") <= 80


def test_a_stopped_container_and_one_without_a_port_have_a_card_too() -> None:
    stopped = {key: value for key, value in STATUS.items() if "used" not in key or "host" in key} | {
        "state": "stopped",
        "uptime_seconds": None,
    }
    assert "stopped\n" in card.card(stopped, PLAIN)
    assert "You use" not in card.card(stopped, PLAIN)
    assert "not assigned yet; run `start`" in card.card({**STATUS, "port": None}, PLAIN)
    assert "None yet" in answers.forwards_text({**STATUS, "forwards": []}, PLAIN)


def test_on_the_labs_own_network_the_address_is_the_way_in() -> None:
    direct = {**STATUS, "has_ports": False, "port": None, "last_port": None, "address": "192.0.2.77"}
    text = card.card(direct, PLAIN)
    assert "ssh alice@192.0.2.77\n" in text
    assert "scp FILE alice@192.0.2.77:\n" in text
    assert "-p " not in text
    assert "not assigned yet; run `start`" in card.card({**direct, "address": None}, PLAIN)
    assert "192.0.2.77 ssh-ed25519" in laptop.known_hosts(direct, []).replace("alice.gpu1.lab.example,", "")
    assert "reached at its own address" in answers.forwards_text({**direct, "forwards": []}, PLAIN)


def fullest_status() -> dict[str, object]:
    """A status of which every row of the card is there, each as long as it gets."""
    return {
        **STATUS, "gateway_fingerprint": "SHA256:" + "y" * 43, "cpu_limit": "0-31,64-95", "stops_at": "2026-11-29T10:00:00Z",
        "held_until": "2026-11-29T10:00:00Z", "held_for": "thesis",
    }  # fmt: skip


@pytest.mark.parametrize("chosen", language.LANGUAGES)
def test_the_first_screen_fits_a_window_of_80_columns_and_24_rows(chosen: str) -> None:
    language.use(chosen)
    try:
        lines = (card.card(fullest_status(), PLAIN) + menu.short_choices(80, PLAIN) + "labshell> ").split("\n")
    finally:
        language.use(language.ENGLISH)
    assert len(lines) <= 24
    assert max(shown.width(line) for line in lines) <= 80


@pytest.mark.parametrize("columns", [10, 40, 79, 80, 200])
def test_the_short_menu_has_every_choice_with_its_number_and_fits(columns: int) -> None:
    text = menu.short_choices(columns, PLAIN)
    words = text.split()
    assert all(words[words.index(verb.name) - 1] == str(number) for number, verb in enumerate(menu.CHOICES, 1))
    assert max(len(line) for line in text.splitlines()[:-1]) <= max(columns, 15)


def test_the_card_names_the_key_of_the_host_and_of_the_container_with_their_places() -> None:
    lines = card.card({**STATUS, "gateway_fingerprint": "SHA256:host", "host_port": 2222}, PLAIN).splitlines()
    assert "  Host key     SHA256:host  port 2222" in lines
    assert any("x" * 43 + "  port 20010" in line for line in lines)
    direct = {**STATUS, "has_ports": False, "port": None, "gateway_fingerprint": "SHA256:host"}
    assert "x" * 43 + "  container" in card.card(direct, PLAIN)
    assert "Host key" not in card.card({**STATUS, "fingerprint": None}, PLAIN)


@pytest.mark.parametrize("chosen", language.LANGUAGES)
def test_the_note_to_a_new_user_has_all_that_the_first_login_needs(chosen: str) -> None:
    language.use(chosen)
    try:
        text = note.note({**fullest_status(), "host_port": 2222, "host": "gpu1"})
    finally:
        language.use(language.ENGLISH)
    for part in ("ssh -p 2222 alice@gpu1\n", "ssh -p 20010 alice@gpu1\n", "SHA256:" + "y" * 43, "SHA256:" + "x" * 43, "2222", "20010"):
        assert part in text
    assert max(shown.width(line) for line in text.splitlines()) <= 100
    assert text.startswith("Your container on gpu1") == (chosen == language.ENGLISH)


def test_no_text_from_elsewhere_gets_into_the_note() -> None:
    text = note.note({**STATUS, "host": EVIL, "user": EVIL, "gateway_fingerprint": EVIL})
    assert all(character.isprintable() or character == "\n" for character in text)


def test_the_status_of_a_stopped_container_has_its_disk_and_why_it_may_not_start() -> None:
    stopped = {**STATUS, "state": "stopped", "memory_used": None, "processes": None, "maintenance": "new driver until 18:00"}
    text = card.status_text(stopped, PLAIN)
    assert "disk 123 GiB of 200 GiB\n" in text
    assert "CPU limit" not in text
    assert "new starts are disabled\n" in text
    assert "new driver until 18:00\n" in text
    assert "Maintenance" not in card.status_text({**stopped, "maintenance": None}, PLAIN)


def test_the_laptops_files_name_ports_and_keys() -> None:
    config = laptop.ssh_config({**STATUS, "host_port": 33})
    assert "Host alice.gpu1.lab.example\n" in config
    assert "alice@gpu1.lab.example proxy\n" in config
    assert "Host gpu1.lab.example alice.gpu1.lab.example\n    User alice\n    Port 33\n" in config
    assert laptop.known_hosts({**STATUS, "host_port": 33}, ["ssh-rsa BBBB"]).splitlines() == [
        "[gpu1.lab.example]:33 ssh-rsa BBBB",
        "alice.gpu1.lab.example,[gpu1.lab.example]:20010 ssh-ed25519 AAAA",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (64 << 30, "64 GiB"), (1000 << 30, "1.0 TiB")],
)
def test_sizes_are_for_people(count: int | None, text: str) -> None:
    assert shown.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (5, "5 s"), (65, "1 min"), (7500, "2 h 5 min"), (90000, "25 h 0 min"), (200000, "2 days")],
)
def test_times_are_for_people(seconds: int | None, text: str) -> None:
    assert shown.duration(seconds) == text


def test_no_control_character_is_shown() -> None:
    for code in (*range(32), 127, *range(128, 160), 0x200E, 0x2028, 0x202E, 0x2066, 0xD800, 0xFEFF):
        assert shown.plain(chr(code)).isprintable()
    assert shown.plain("ümläut 漢字") == "ümläut 漢字"


def test_a_full_disk_is_said_on_the_card_and_in_the_status_running_or_stopped() -> None:
    stopped = {**STATUS, "state": "stopped", "memory_used": None, "processes": None}
    for status in (STATUS, stopped):
        for show in (card.card, card.status_text):
            assert "Disk full" not in show(status, PLAIN)
            assert "disk 123 GiB of 200 GiB" in show(status, PLAIN)
            assert "delete files first" in show({**status, "disk_full": True}, PLAIN)
