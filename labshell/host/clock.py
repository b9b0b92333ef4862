"""The time of day: the one place that asks the host for it, so that tests can set it."""

from __future__ import annotations

import datetime
import time


class Clock:
    """The host's clock."""

    def seconds(self) -> float:
        """Since the epoch."""
        return time.time()

    def now(self) -> datetime.datetime:
        """The same in UTC."""
        return datetime.datetime.fromtimestamp(self.seconds(), datetime.timezone.utc)

    def today(self) -> datetime.date:
        """The date where the host is: a day ends at its own midnight."""
        return self.now().astimezone().date()
