"""What was typed wrong gets one sentence that is true: what was meant, or where it belongs."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from labshell.errors import UsageError
from labshell.shell import menu, mistyped, verbs

EVIL = "a\x1b[2Jb\nc\u202ed\x9be\u2028f\ud800g"


def slips(word: str) -> set[str]:
    """Every word that one slip makes of `word`: a letter missing, doubled, wrong, or two in the wrong order."""
    places = range(len(word))
    missing = {word[:place] + word[place + 1 :] for place in places}
    doubled = {word[:place] + word[place] + word[place:] for place in places}
    swapped = {word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :] for place in places}
    wrong = {word[:place] + letter + word[place + 1 :] for place in places for letter in "xq0-"}
    return missing | doubled | swapped | wrong


@pytest.mark.parametrize("verb", [verb.name for verb in verbs.VERBS])
def test_one_slip_in_a_verb_is_answered_with_that_verb(verb: str) -> None:
    for slip in slips(verb) - set(verbs.BY_NAME) - mistyped.FOR_A_SHELL:
        found = mistyped.nearest(slip, verbs.COMMANDS)
        assert found == verb or mistyped.distance(slip, found) == 1, slip


@pytest.mark.parametrize(
    ("word", "verb"),
    [("stauts", "status"), ("STATUS", "status"), ("Status.", "status"), ("`status`", "status"), ("\uff53tatus", "status"), ("status\u3002", "status"),
     ("snap", "snapshot"), ("snapshots", "snapshot"), ("key", "keys"), ("gpu", "gpus"), ("port", "ports"), ("restat", "restart"), ("eixt", "exit"),
     ("nonsense", ""), ("x", ""), ("", ""), ("x" * 5000, ""), ("frobnicate", "")],
)  # fmt: skip
def test_a_near_miss_is_found_and_nothing_else_is(word: str, verb: str) -> None:
    assert mistyped.nearest(word, verbs.COMMANDS) == verb


def sentence_in_menu(line: str) -> str:
    with pytest.raises(UsageError) as caught:
        menu._request(line)
    return str(caught.value)


@pytest.mark.parametrize("line", ["ssh -p 20010 alice@gpu1", "scp -P 20010 a alice@gpu1:", "rsync -a x alice@gpu1:", "sftp alice@gpu1", "ssh-keygen"])
def test_a_line_for_the_laptop_says_so(line: str) -> None:
    assert sentence_in_menu(line).startswith(f"{line.split()[0]} is for your own computer's terminal; `enter` opens")


@pytest.mark.parametrize("line", ["ls", "ls -la", "cd /tmp", "sudo apt install x", "nvidia-smi", "top", "python3 a.py"])
def test_a_line_for_a_shell_says_so(line: str) -> None:
    assert sentence_in_menu(line) == f"{line.split()[0]} is for a shell; `enter` opens one in the container."


@pytest.mark.parametrize("line", ["16", "0", "-1", "99999999999999999999", "1.", "3)", "\u0663"])
def test_a_number_that_is_no_choice_is_answered_with_those_there_are(line: str) -> None:
    assert f"a number from 1 to {len(menu.CHOICES)}" in sentence_in_menu(line)


@pytest.mark.parametrize(
    ("line", "part"),
    [("ssh-copy-id alice@gpu1", "`keys add`"), ("ssh-ed25519 AAAA me", "`keys add`"), ("clear", "Ctrl-L"), ("stauts", "Did you mean `status`?"),
     ("frobnicate now", "Unknown command: frobnicate (see `help`)."), ("run \udc80", "UTF-8"), (EVIL, "Unknown command: "), ("\udc80", "Unknown command: ")],
)  # fmt: skip
def test_every_other_line_gets_its_sentence(line: str, part: str) -> None:
    assert part in sentence_in_menu(line)


@pytest.mark.parametrize("line", ["q", "quit", "exit", "logout", "bye", ":q", "exit()"])
def test_every_usual_word_leaves(line: str) -> None:
    assert verbs.parse(line).verb.name == "quit"


@given(strategies.text(strategies.characters(), min_size=1, max_size=60))
def test_no_line_at_all_is_more_than_one_harmless_sentence(line: str) -> None:
    if not line.strip():
        return
    try:
        sentence = menu._request(line).verb.name
    except UsageError as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) < 250


@pytest.mark.parametrize("verb", [verb.name for verb in verbs.VERBS])
@pytest.mark.parametrize("form", ["{} --help", "{} -h", "help {}", "{} --json -h", "help {} add", "? {}"])
def test_help_is_had_of_every_verb_in_every_usual_way(verb: str, form: str) -> None:
    request = verbs.parse(form.format(verb))
    assert (request.verb.name, request.arguments[:1]) == ("help", [verb])
    assert verbs.help_text(*request.arguments).startswith(verb)


@pytest.mark.parametrize("line", ["run ls --help", "run ls -h", "enter ls -h", "keep 3d -h"])
def test_help_that_belongs_to_a_command_inside_goes_to_it(line: str) -> None:
    assert verbs.parse(line).verb.name == line.split()[0]


@pytest.mark.parametrize("action", [f"{verb.name} {form.action}" for verb in verbs.VERBS for form in verb.forms if form.action])
def test_help_is_had_of_every_action(action: str) -> None:
    assert verbs.parse(f"{action} --help").arguments == action.split()[:1]


@pytest.mark.parametrize(
    ("line", "command"),
    [("snapshot crate x", "snapshot create"), ("snapshot rm x", "snapshot delete"), ("ports delete 8888", "ports remove"), ("keys del 1", "keys remove"),
     ("rebuild forgt", "rebuild forget"), ("status --jsno", "status --json"), ("snapshot restore x --yse", "snapshot --yes"), ("stop --Force", "stop --force")],
)  # fmt: skip
def test_a_mistyped_action_or_option_is_answered_with_the_right_one(line: str, command: str) -> None:
    with pytest.raises(UsageError) as caught:
        verbs.parse(line)
    assert f"Did you mean `{command}`?" in str(caught.value)


def test_a_command_after_ssh_that_is_none_of_ours_names_the_right_commands() -> None:
    way_in = "ssh -p 20010 alice@gpu1"
    text = str(mistyped.after_ssh("nvidia-smi -l", "alice@gpu1", way_in, verbs.COMMANDS))
    assert "ssh alice@gpu1 run nvidia-smi" in text
    assert "ssh -p 20010 alice@gpu1 nvidia-smi" in text
    assert str(mistyped.after_ssh(EVIL, "alice@gpu1", "", verbs.COMMANDS)).isprintable()
    assert str(mistyped.after_ssh("stauts", "alice@gpu1", way_in, verbs.COMMANDS)) == (
        "Unknown command: stauts. Did you mean: ssh alice@gpu1 status"
    )


def test_what_ssh_copy_id_sends_is_answered_with_the_command_that_adds_a_key() -> None:
    sent = "exec sh -c 'cd ; umask 077 ; mkdir -p .ssh && cat >> .ssh/authorized_keys || exit 1 ;'"
    assert str(mistyped.after_ssh(sent, "alice@gpu1", "", verbs.COMMANDS)) == (
        "ssh-copy-id cannot add a key here; run: ssh alice@gpu1 keys add < FILE.pub"
    )
