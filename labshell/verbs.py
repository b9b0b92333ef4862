"""The one list of verbs: it feeds the parser, help, completion and the menu. Pure, and quick to import."""

from __future__ import annotations

from labshell import shown
from labshell.errors import UsageError

LONGEST_LINE = 4096


class Verb:
    """One thing a researcher can ask for. `options` are the ones it takes, without their dashes."""

    __slots__ = ("in_menu", "name", "options", "summary", "takes_verb")

    def __init__(
        self,
        name: str,
        summary: str,
        options: tuple[str, ...] = (),
        *,
        in_menu: bool = True,
        takes_verb: bool = False,
    ) -> None:
        self.name = name
        self.summary = summary
        self.options = options
        self.in_menu = in_menu
        self.takes_verb = takes_verb

    @property
    def usage(self) -> str:
        words = [self.name, *(f"[--{option}]" for option in self.options)]
        return " ".join([*words, "[VERB]"] if self.takes_verb else words)


VERBS = (
    Verb("status", "state, address, ports, and what is used of the limits", ("json",)),
    Verb("start", "start the container, or wait until it has started", ("json",)),
    Verb("stop", "shut the container down; running jobs end", ("force", "json")),
    Verb("restart", "shut it down and start it again", ("force", "json")),
    Verb("help", "what there is, or more about one verb", takes_verb=True),
    Verb("version", "the version of labshell", ("json",), in_menu=False),
    Verb("quit", "leave; the container goes on running"),
)
BY_NAME = {verb.name: verb for verb in VERBS}
ALIASES = {"?": "help", "exit": "quit", "logout": "quit", "-h": "help", "--help": "help", "--version": "version"}


class Request:
    """A line that was understood: a verb and what was given with it."""

    __slots__ = ("options", "topic", "verb")

    def __init__(self, verb: Verb, options: frozenset[str] = frozenset(), topic: str = "") -> None:
        self.verb = verb
        self.options = options
        self.topic = topic


def parse(line: str) -> Request:
    """What `line` asks for; UsageError with one sentence if it is nothing we know.

    Words are split at blanks and compared with the table: nothing is expanded, quoted or run.
    """
    if len(line) > LONGEST_LINE:
        raise UsageError("This line is too long.")
    words = line.split()
    name = ALIASES.get(words[0], words[0]) if words else ""
    verb = BY_NAME.get(name)
    if verb is None:
        raise UsageError("There is no verb {word}; help lists what there is.", word=shown.plain(words[0])[:40])
    options, rest = set(), []
    for word in words[1:]:
        if word.startswith("-") and word.removeprefix("--") in verb.options:
            options.add(word.removeprefix("--"))
        else:
            rest.append(word)
    topic = rest.pop(0) if verb.takes_verb and rest else ""
    if rest:
        raise UsageError(
            "{verb} does not take {word}: {usage}", verb=verb.name, word=shown.plain(rest[0])[:40], usage=verb.usage
        )
    if topic and topic not in BY_NAME:
        raise UsageError("There is no verb {word}; help lists what there is.", word=shown.plain(topic)[:40])
    return Request(verb, frozenset(options), topic)


def help_text(topic: str = "") -> str:
    """All verbs in one list, or one verb with its options."""
    if topic:
        verb = BY_NAME[topic]
        return f"{verb.usage}\n    {verb.summary}\n" + "".join(
            f"    --{option}  {OPTIONS[option]}\n" for option in verb.options
        )
    lines = [f"  {verb.usage:28}{verb.summary}" for verb in VERBS]
    return "\n".join(["In the menu, or after ssh HOST:", "", *lines, ""]) + "\n"


OPTIONS = {
    "json": "answer with one JSON object, for programs",
    "force": "at once and without a clean shutdown, if it does not stop by itself",
}
