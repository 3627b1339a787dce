"""The provider's side of rate limits, on a clock that tests may move."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch; `advance` moves it so that nobody waits for a 24-hour window."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch, as this sandbox sees it."""
        return self._source() + self._offset

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self._offset += seconds


class Bucket:
    """`burst` at once, then one each `interval` seconds; what was borrowed is repaid by waiting.

    Kept as one number, the time at which all is repaid (the generic cell rate algorithm).
    """

    __slots__ = ("burst", "interval", "repaid")

    def __init__(self, interval: float, burst: int) -> None:
        self.interval = interval
        self.burst = burst
        self.repaid = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is within the limit at `now`; counts it when it is."""
        repaid = max(self.repaid, now)
        # The hundredth is for sums of floats this far from zero, not for generosity.
        if repaid - now > self.interval * (self.burst - 1 + 0.01):
            return False
        self.repaid = repaid + self.interval
        return True
