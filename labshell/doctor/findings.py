"""What doctor of the host finds: the form of a finding, and how bad one can be."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One problem. `subject` is the user or the thing that has it."""

    id: str
    severity: str
    finding: str
    remedy: str
    subject: str = ""
