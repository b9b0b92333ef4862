"""The few ways anything can end badly, chosen by what the caller does next.

Every error carries an id, which stays as it is for programs, and one sentence for the user: what happened and
what to do. The sentence is a template with named values, so that the login shell can translate it. The cause is
chained for the journal and never shown. Standard library only: the login shell imports this.
"""

from __future__ import annotations


class LabshellError(Exception):
    """Something failed and trying the same again will not help. Exit status 1."""

    status = 1
    name = "Failed"

    def __init__(self, error_id: str, sentence: str, /, **values: object) -> None:
        super().__init__(error_id, sentence)
        self.id = error_id  # what happened, not where: docs/errors.md lists them
        self.sentence = sentence
        self.values = {key: str(value) for key, value in values.items()}
        self.detail = ""  # the engine's own words: for root, never for a user
        self.remedy = ""  # the administrator's command, as the daemon sent it; else labshell.remedies knows it

    @classmethod
    def around(cls, error: LabshellError, sentence: str, /, **values: object) -> LabshellError:
        """`error` as one of this kind, with a sentence that also says in what it happened; the id stays."""
        wider = cls(error.id, sentence, **values)
        wider.detail, wider.remedy = error.detail, error.remedy
        return wider

    def __str__(self) -> str:
        return self.sentence.format_map(self.values)


class UsageError(LabshellError):
    """The request itself is wrong: nothing was changed. Exit status 2."""

    status = 2
    name = "Usage"


class NoContainer(LabshellError):
    """There is no container for this user. Exit status 69 (EX_UNAVAILABLE)."""

    status = 69
    name = "NoContainer"


class TryAgain(LabshellError):
    """Something is not running, busy or slow; the same request may work later. Exit status 75 (EX_TEMPFAIL)."""

    status = 75
    name = "TryAgain"


class StillPending(TryAgain):
    """What was begun may still come to an end, or be undone, later: only recovering it tells which."""


class Crowded(TryAgain):
    """Nothing was begun: the limit is reached. The same request may succeed in a moment."""

    name = "Crowded"


class NotAllowed(LabshellError):
    """The user may not do this. Exit status 77 (EX_NOPERM)."""

    status = 77
    name = "NotAllowed"


class Cancelled(LabshellError):
    """The user has interrupted it; the daemon completes what it has begun. Exit status 130, as after Ctrl-C."""

    status = 130


KINDS: dict[str, type[LabshellError]] = {
    kind.name: kind for kind in (LabshellError, UsageError, NoContainer, TryAgain, Crowded, NotAllowed)
}
