"""Log lines: one JSON object a line on standard error, where systemd's journal reads them.

Everything in a line is escaped JSON, so nothing a user or a container chose can forge a line.
"""

from __future__ import annotations

import json
import logging
import os
import sys

PRIORITIES = {logging.ERROR: "<3>", logging.WARNING: "<4>", logging.INFO: "<6>"}
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Line(logging.Formatter):
    """A record and its extra fields as one line; with systemd's priority if it reads this."""

    def __init__(self, *, with_priority: bool) -> None:
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        line = {"event": record.getMessage(), "level": record.levelname.lower()}
        line |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["cause"] = self.formatException(record.exc_info)
        priority = PRIORITIES.get(record.levelno, "<6>") if self._with_priority else ""
        return priority + json.dumps(line, ensure_ascii=True, default=str)


def start_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(with_priority="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("urllib3", "ws4py", "pylxd", "filelock"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
