"""The one list of verbs: it feeds the parser, help, completion and the menu. Pure, and quick to import."""

from __future__ import annotations

from labshell import shown
from labshell.errors import UsageError

LONGEST_LINE = 4096


class Verb:
    """One thing a researcher can ask for.

    `options` are the ones it takes, without their dashes; `takes` is what may follow, as help shows it.
    """

    __slots__ = ("in_menu", "name", "options", "summary", "takes")

    def __init__(
        self,
        name: str,
        summary: str,
        options: tuple[str, ...] = (),
        *,
        in_menu: bool = True,
        takes: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        self.options = options
        self.in_menu = in_menu
        self.takes = takes

    @property
    def usage(self) -> str:
        words = [self.name, *(f"[--{option}]" for option in self.options)]
        return " ".join([*words, self.takes] if self.takes else words)


VERBS = (
    Verb("status", "state, address, ports, and what is used of the limits", ("json",)),
    Verb("start", "start the container, or wait until it has started", ("json",)),
    Verb("stop", "shut the container down; running jobs end", ("force", "json")),
    Verb("restart", "shut it down and start it again", ("force", "json")),
    Verb("enter", "a shell in the container, even if its own SSH is broken", ("root",), takes="[COMMAND]"),
    Verb("run", "run a command in the container", ("root",), in_menu=False, takes="COMMAND"),
    Verb("proxy", "be the connection to the container's SSH server, for ProxyCommand", in_menu=False),
    Verb("help", "what there is, or more about one verb", takes="[VERB]"),
    Verb("version", "the version of labshell", ("json",), in_menu=False),
    Verb("quit", "leave; the container goes on running"),
)
BY_NAME = {verb.name: verb for verb in VERBS}
ALIASES = {"?": "help", "exit": "quit", "logout": "quit", "-h": "help", "--help": "help", "--version": "version"}


class Request:
    """A line that was understood: a verb and what was given with it."""

    __slots__ = ("options", "rest", "verb")

    def __init__(self, verb: Verb, options: frozenset[str] = frozenset(), rest: str = "") -> None:
        self.verb = verb
        self.options = options
        self.rest = rest


def parse(line: str) -> Request:
    """What `line` asks for; UsageError with one sentence if it is nothing we know.

    Words are split at blanks and compared with the table: nothing is expanded, quoted or run.
    """
    name, _, rest = line.strip().partition(" ")
    verb = BY_NAME.get(ALIASES.get(name, name))
    if verb is None:
        raise _unknown(name)
    if "COMMAND" in verb.takes:
        return _with_command(verb, rest.strip())
    if len(line) > LONGEST_LINE:
        raise UsageError("This line is too long.")
    options, words = set(), []
    for word in rest.split():
        if word.startswith("--") and word[2:] in verb.options:
            options.add(word[2:])
        else:
            words.append(word)
    topic = words.pop(0) if "VERB" in verb.takes and words else ""
    if words:
        raise UsageError(
            "{verb} does not take {word}: {usage}", verb=verb.name, word=shown.plain(words[0])[:40], usage=verb.usage
        )
    if topic and topic not in BY_NAME:
        raise _unknown(topic)
    return Request(verb, frozenset(options), topic)


def _with_command(verb: Verb, rest: str) -> Request:
    """Options first; what follows them is the command, as it was typed."""
    options = set()
    while rest.startswith("--"):
        word, _, following = rest.partition(" ")
        if word == "--":
            rest = following
            break
        if word[2:] not in verb.options:
            raise UsageError(
                "{verb} does not take {word}: {usage}", verb=verb.name, word=shown.plain(word)[:40], usage=verb.usage
            )
        options.add(word[2:])
        rest = following.strip()
    if not rest and not verb.takes.startswith("["):
        raise UsageError("{verb} needs a command: {usage}", verb=verb.name, usage=verb.usage)
    return Request(verb, frozenset(options), rest)


def _unknown(word: str) -> UsageError:
    return UsageError("There is no verb {word}; help lists what there is.", word=shown.plain(word)[:40])


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
    "root": "as root instead of as yourself",
    "json": "answer with one JSON object, for programs",
    "force": "at once and without a clean shutdown, if it does not stop by itself",
}
