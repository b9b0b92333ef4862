"""Every error of labshell, read from the code: its id, sentence, exit status and the administrator's command.

`scripts/errors` writes docs/errors.md from it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from labshell.engine.errors import SENTENCES
from labshell.remedies import REMEDIES

TREE = Path(__file__).resolve().parents[1]
PACKAGE = TREE / "labshell"
PAGE = TREE / "docs/errors.md"
BASE = "LabshellError"
HEAD = """\
# Errors

Made by `scripts/errors` from the code; a test compares.

An error has an id that stays as it is: a program compares the id and the exit status. The sentence is for the reader, and its
words may change. With `--json`, a command that fails prints one line on standard error:

```
{"error": {"id": "container-missing", "message": "There is no container alice.", "remedy": "labshell-admin list"}}
```

`remedy` is a command line for the administrator, with words in capitals left to fill in; a user gets `null`. Where one step of a
longer operation fails, the id is that of the cause, and the message also names the operation. An error that can be raised for
several reasons has several exit statuses; the guides say what each of them means.

Standard output stays empty, but for the result of `import`, `import-host`, `drain` and `undrain`, which go on after a failure. What
the user is told only once, such as how an interrupted rebuild ended, is `notice` beside `error`.

| id | exit status | message | remedy |
| --- | --- | --- | --- |
"""


class Raised(NamedTuple):
    """An error where the code makes it."""

    place: str
    status: int
    id: str
    sentence: str
    values: frozenset[str]


class Unnamed(NamedTuple):
    """An error whose id is not written where it is made."""

    place: str
    text: str


@cache
def _trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))
    }


def kinds() -> dict[str, int]:
    """The exit status of each class of errors, by its name."""
    found = {BASE: 1}
    classes = [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        new = [node for node in classes if node.name not in found and _bases(node) & found.keys()]
        if not new:
            return found
        for node in new:
            own = [
                line.value.value
                for line in node.body
                if isinstance(line, ast.Assign)
                and ast.unparse(line.targets[0]) == "status"
                and isinstance(line.value, ast.Constant)
            ]
            found[node.name] = int(str(own[0])) if own else found[next(iter(_bases(node) & found.keys()))]


def _bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base) for base in node.bases}


def _made() -> Iterator[Raised | Unnamed]:
    known = kinds()
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in known:
                place = f"{path}:{node.lineno}"
                match node.args:
                    case [ast.Constant(value=str(error_id)), ast.Constant(value=str(sentence))]:
                        values = frozenset(given.arg for given in node.keywords if given.arg)
                        yield Raised(place, known[ast.unparse(node.func)], error_id, sentence, values)
                    case _:
                        yield Unnamed(place, ast.unparse(node))


@cache
def raised() -> list[Raised]:
    """Every error, once for each place that makes it, and those of the engine."""
    made = [item for item in _made() if isinstance(item, Raised)]
    return made + [
        Raised("engine/errors.py", kind.status, error_id, sentence, frozenset({"name", "action"}))
        for _, kind, error_id, sentence in SENTENCES
    ]


def unnamed() -> list[Unnamed]:
    return [item for item in _made() if isinstance(item, Unnamed)]


def page() -> str:
    """docs/errors.md."""
    found: dict[str, tuple[str, set[int]]] = {}
    for item in raised():
        found.setdefault(item.id, (item.sentence, set()))[1].add(item.status)
    rows = []
    for error_id, (sentence, statuses) in sorted(found.items()):
        remedy = f"`{REMEDIES[error_id]}`" if error_id in REMEDIES else ""
        text = sentence.replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{error_id}` | {', '.join(map(str, sorted(statuses)))} | {text} | {remedy} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
