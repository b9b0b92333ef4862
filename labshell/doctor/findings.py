"""What doctor of the host finds: the form of a finding, and how bad one can be."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it has to be. `subject` is whose, or what's."""

    id: str
    severity: str
    finding: str
    remedy: str
    subject: str = ""
