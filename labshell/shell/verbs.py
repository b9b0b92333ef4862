"""The one list of verbs: it feeds the parser, help, completion and the menu. Pure, and quick to import."""

from __future__ import annotations

from labshell.errors import UsageError
from labshell.language import _, mark

LONGEST_LINE = 4096
LISTS = ("ports", "snapshot", "keys")  # what they do without an action, "list" says too
RUN_PROGRAMS = ("enter", "run")  # behind which a program has options of its own
LONGEST_COMMAND = 131072  # what sshd passes on at most

# What an option takes ("" for nothing) and what it does.
OPTIONS = {
    "json": ("", mark("answer with one JSON object, for programs")),
    "force": ("", mark("end it at once, without a clean shutdown")),
    "root": ("", mark("as root instead of as yourself")),
    "name": ("NAME", mark("a word to remember it by")),
    "for": ("TIME", mark("how long it stays: 30m, 8h, 3d; for good without this")),
    "from": ("NETWORK", mark("only from these addresses: 192.0.2.0/24")),
    "template": ("NAME", mark("another template than the usual one")),
    "yes": ("", mark("do not ask")),
    "end-sessions": ("", mark("also end the sessions that the key has opened")),
}


class Form:
    """One way to use a verb: an action word or none, arguments, options.

    An argument in brackets may be left out; one that ends in dots is the rest of the line, as it was typed; one that
    ends in + may have several words.
    """

    __slots__ = ("action", "arguments", "options")

    def __init__(self, action: str = "", arguments: str = "", options: str = "") -> None:
        self.action = action
        self.arguments = arguments.split()
        self.options = options.split()


class Verb:
    """One thing a researcher can ask for; its summary is in English, to be translated where it is shown."""

    __slots__ = ("forms", "in_menu", "name", "summary")

    def __init__(self, name: str, summary: str, *forms: Form, in_menu: bool = True) -> None:
        self.name = name
        self.summary = summary
        self.forms = forms or (Form(),)
        self.in_menu = in_menu

    @property
    def usages(self) -> list[str]:
        return [_usage(self.name, form) for form in self.forms]


def _usage(name: str, form: Form) -> str:
    options = [f"[--{option} {OPTIONS[option][0]}".rstrip() + "]" for option in form.options]
    # What follows a command belongs to it, so the options of such a form come first.
    takes_command = any("..." in word for word in form.arguments)
    arguments = [word.rstrip("+") for word in form.arguments]
    words = [*options, *arguments] if takes_command else [*arguments, *options]
    return " ".join(word for word in (name, form.action, *words) if word)


VERBS = (
    Verb("status", "state, address, ports, and what is used of the limits", Form(options="json")),
    Verb("start", "start the container, or wait until it has started", Form(options="json")),
    Verb("stop", "shut the container down; running jobs end", Form(options="force yes json")),
    Verb("restart", "shut it down and start it again", Form(options="force yes json")),
    Verb("enter", "a shell in the container, even if its own SSH is broken", Form("", "[COMMAND...]", "root")),
    Verb("run", "run a command in the container", Form("", "COMMAND...", "root"), in_menu=False),
    Verb("proxy", "relay stdin/stdout to the container's SSH server (ProxyCommand)", in_menu=False),
    Verb(
        "ports", "your own ports: reach a web page or a service in the container",
        Form(options="json"), Form("add", "PORT", "name for from json"), Form("remove", "PORT", "json"),
    ),
    Verb(
        "snapshot", "keep the container's state, and go back to it",
        Form(options="json"), Form("create", "[NAME]", "json"), Form("restore", "NAME", "yes json"),
        Form("delete", "NAME", "yes json"),
    ),
    Verb(
        "keys", "your public keys for logging in",
        Form(options="json"), Form("add", "[KEY...]", "json"), Form("remove", "KEY+", "end-sessions yes json"),
    ),
    Verb(
        "rebuild", "a fresh container from the template; the old one is kept",
        Form(options="template force yes json"), Form("undo", options="force yes json"),
        Form("forget", options="yes json"),
    ),
    Verb(
        "keep", "exempt the container from idle stop",
        Form("", "[TIME] [REASON...]", "json"), Form("off", options="json"),
    ),
    Verb("usage", "your usage, the other active users, and the load of the host", Form(options="json")),
    Verb("gpus", "each GPU: its load, its memory, and the users on it", Form(options="json")),
    Verb("doctor", "check everything between you and your container", Form(options="json")),
    Verb("ssh-config", "lines for ~/.ssh/config on your laptop", in_menu=False),
    Verb("known-hosts", "lines for ~/.ssh/known_hosts on your laptop", in_menu=False),
    Verb("help", "list the commands, or describe one", Form("", "[VERB] [ACTION]")),
    Verb("whoami", "you, your container, where it is reached, the version", Form(options="json"), in_menu=False),
    Verb("version", "the version of labshell", Form(options="json"), in_menu=False),
    Verb("quit", "leave the menu; the container keeps running"),
)  # fmt: skip
BY_NAME = {verb.name: verb for verb in VERBS}
HELP_WORDS = ("-h", "--help")
ALIASES = {
    "?": "help", **dict.fromkeys(HELP_WORDS, "help"), "--version": "version",
    **dict.fromkeys(("exit", "logout", "q", "bye", ":q", ":q!", ":wq", "exit()", "quit()"), "quit"),
}  # fmt: skip
COMMANDS = (*BY_NAME, "exit", "logout")  # what may have been meant by a word that is none of them


class Request:
    """A line that was understood: a verb, its action, and what was given with it."""

    __slots__ = ("action", "arguments", "options", "usage", "verb")

    def __init__(self, verb: Verb, form: Form, arguments: list[str], options: dict[str, str]) -> None:
        self.verb = verb
        self.action = form.action
        self.usage = _usage(verb.name, form)
        self.arguments = arguments
        self.options = options


def parse(line: str) -> Request:
    """What `line` asks for; UsageError with one sentence if it is nothing we know.

    Words are split at blanks and compared with the table: nothing is expanded, quoted or run.
    """
    name, rest = _first_word(line)
    verb = find(name)
    longest = (
        LONGEST_COMMAND if any("..." in word for form in verb.forms for word in form.arguments) else LONGEST_LINE
    )
    if len(line) > longest:
        raise UsageError("line-too-long", "This line is too long.")
    first = _first_word(rest)[0]
    form = next((form for form in verb.forms if form.action and form.action == first), verb.forms[0])
    if form.action or (first == "list" and verb.name in LISTS):
        rest = rest.partition(first)[2]
    if _asks_for_help(form, rest):
        return Request(BY_NAME["help"], Form(), [verb.name], {})
    arguments, options = _arguments(verb, form, rest)
    if verb.name == "help" and arguments:
        arguments = [find(arguments[0]).name]
    return Request(verb, form, arguments, options)


def find(name: str) -> Verb:
    """The verb of that name; UsageError if there is none."""
    verb = BY_NAME.get(ALIASES.get(name, name))
    if verb is None:
        from labshell.shell import mistyped

        raise mistyped.unknown(name, COMMANDS)
    return verb


def wants_json(line: str) -> bool:
    """Whether a line, be it right or wrong, asks for JSON; behind `run` and `enter`, the option is a program's."""
    name, rest = _first_word(line)
    return "--json" in rest.split() and ALIASES.get(name, name) not in RUN_PROGRAMS


def refuse_undecodable(line: str) -> None:
    """Refuse a line that is not text: the daemon and programs take UTF-8 only."""
    try:
        line.encode()
    except UnicodeEncodeError:
        raise UsageError("line-not-utf8", "This command is not valid UTF-8.") from None


def _asks_for_help(form: Form, rest: str) -> bool:
    """Whether a word for help is among a verb's own; behind the first word of a command it belongs to that."""
    takes_command = any("..." in word for word in form.arguments)
    for word in rest.split():
        if word in HELP_WORDS:
            return True
        if takes_command and not word.startswith("--"):
            return False
    return False


def _arguments(verb: Verb, form: Form, rest: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and options of one form in the rest of a line."""
    arguments: list[str] = []
    options: dict[str, str] = {}
    usage = _usage(verb.name, form)
    while rest.strip():
        word, following = _first_word(rest)
        wanted = form.arguments[len(arguments)] if len(arguments) < len(form.arguments) else ""
        if word == "--":
            pass
        elif word.startswith("--") and word[2:] in form.options:
            value, following = _first_word(following) if OPTIONS[word[2:]][0] else (word, following)
            if not value:
                raise UsageError("option-value-missing", "{option} needs a value: {usage}", option=word, usage=usage)
            options[word[2:]] = value
        elif "..." in wanted and (not word.startswith("--") or word.startswith("----")):  # a BEGIN line is no option
            arguments.append(rest.strip())
            break
        elif wanted and not word.startswith("--"):
            arguments.append(word)
        elif arguments and form.arguments[-1].endswith("+") and not word.startswith("--"):
            arguments[-1] += f" {word}"
        elif word == "--udp":
            raise UsageError("udp-not-forwarded", "Only TCP is forwarded: there are no ports for UDP.")
        else:
            raise _wrong_word(verb, form, word)
        rest = following
    if len(arguments) < len([word for word in form.arguments if not word.startswith("[")]):
        raise UsageError(
            "argument-missing", "{verb}: an argument is missing; usage: {usage}", verb=verb.name, usage=usage
        )
    return arguments, options


def _first_word(text: str) -> tuple[str, str]:
    """The first word, empty if there is none, and what follows it, as it was typed."""
    text = text.lstrip()
    word = text.split(None, 1)[0] if text else ""
    return word, text[len(word) :]


def _wrong_word(verb: Verb, form: Form, word: str) -> UsageError:
    from labshell.shell import mistyped

    actions = [] if form.action else [other.action for other in verb.forms]
    return mistyped.wrong_word(verb.name, word, actions, form.options)


def help_text(topic: str = "") -> str:
    """All verbs in one list, or one verb with its forms and options."""
    if topic:
        verb = BY_NAME[topic]
        options = sorted({option for form in verb.forms for option in form.options})
        import textwrap

        lines = [line for usage in verb.usages for line in textwrap.wrap(usage, 78, subsequent_indent="        ")]
        lines.append(f"    {_(verb.summary)}")
        lines += [f"    {f'--{option} {OPTIONS[option][0]}':18}{_(OPTIONS[option][1])}" for option in options]
        return "\n".join(lines) + "\n"
    lines = [f"  {verb.name:13}{_(verb.summary)}" for verb in VERBS]
    return "\n".join([_("In the menu, or after ssh HOST:"), *lines, _("help VERB says more."), ""])
