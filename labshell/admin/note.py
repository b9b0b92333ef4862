"""The note that an administrator mails to a new user: all that the first login needs. Pure.

In the language that is in use when it is written: the user's, which need not be the administrator's.
"""

from __future__ import annotations

from labshell import shown
from labshell.language import _
from labshell.shell import card

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labshell.wire.gateway import ContainerReport

LABEL_COLUMNS = 15


def note(status: ContainerReport) -> str:
    """Address, port, both fingerprints and the first command, to be pasted into a mail as they are."""
    host = shown.plain(status["host"])
    gateway = shown.gateway(status["user"], host, status["host_port"])
    rows = [(_("First command"), f"ssh {gateway}")]
    if card.way_in(status):
        rows.append((_("Then directly"), card.way_in(status)))
    rows += [(_("Fingerprints") if not number else "", key) for number, key in enumerate(card.fingerprints(status))]
    return "\n".join([
        _("Your container on {host} is ready.").format(host=host),
        "",
        *(f"  {shown.padded(label, LABEL_COLUMNS)}{text}" for label, text in rows),
        "",
        _("The first command starts the container and shows how to log in, to copy files and to use VS Code."),
        _("On first connection ssh shows a fingerprint: answer yes only if it is one of these."),
        _("All commands: ssh {gateway} help").format(gateway=gateway),
    ])  # fmt: skip
