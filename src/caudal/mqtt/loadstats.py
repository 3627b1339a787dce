"""What a load client counts: messages by outcome, and how long acknowledgements took."""

from __future__ import annotations

from array import array

STEP = 0.000_1  # seconds a histogram bucket spans
BUCKETS = 300_000  # 30 s; what takes longer counts as that


class Latencies:
    """A histogram fine enough for percentiles (0.1 ms), whatever the number of messages."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * BUCKETS))
        self.total = 0

    def add(self, seconds: float) -> None:
        bucket = int(seconds / STEP)
        self._counts[bucket if bucket < BUCKETS else BUCKETS - 1] += 1
        self.total += 1

    def percentile(self, part: float) -> float:
        """Seconds within which `part` (0 to 1) of all were acknowledged; 0 when there were none."""
        seen = 0
        wanted = part * self.total
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return (bucket + 1) * STEP
        return 0.0


class Totals:
    """What happened, over all connections of a fleet."""

    def __init__(self) -> None:
        self.sent = 0  # messages, once each
        self.resent = 0  # packets sent again after a reconnect
        self.acked = 0
        self.refused: dict[int, int] = {}  # by reason code; not in `acked`
        self.reconnects = 0
        self.lost = 0  # connections lost for good
        self.latencies = Latencies()

    @property
    def unacked(self) -> int:
        return self.sent - self.acked - sum(self.refused.values())
