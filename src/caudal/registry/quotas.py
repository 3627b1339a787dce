"""Quotas: who may do how much, and a limiter cheap enough for the hot path.

`Limiter` is a token bucket for each key. It holds a bounded number of keys and forgets the one unused for
longest, whose bucket would mostly be full again anyhow.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Limiter:
    """Token buckets: `rate` a second, `burst` at once (a second's worth by default), 0 for no limit."""

    __slots__ = ("_buckets", "_clock", "_keys_max", "burst", "rate")

    def __init__(
        self,
        rate: float,
        *,
        burst: float | None = None,
        keys_max: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self.burst = max(1.0, rate if burst is None else burst)
        self._keys_max = keys_max
        self._clock = clock
        # Key to [tokens, when], oldest use first.
        self._buckets: OrderedDict[Hashable, list[float]] = OrderedDict()

    def take(self, key: Hashable, amount: float = 1.0, *, rate: float | None = None) -> float:
        """Take `amount` from the bucket of `key`: 0.0 when it was there, else the seconds until it will be.

        A `rate` of the key's own replaces the limiter's, burst included. An amount above the burst passes
        once the bucket is full and leaves a debt, so that nothing is refused for ever.
        """
        per_second = self.rate if rate is None else rate
        if per_second <= 0:
            return 0.0
        burst = self.burst if rate is None else max(1.0, per_second)
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = [burst, now]
        else:
            self._buckets.move_to_end(key)
            bucket[0] = min(burst, bucket[0] + (now - bucket[1]) * per_second)
            bucket[1] = now
        needed = min(amount, burst)
        if bucket[0] >= needed:
            bucket[0] -= amount
            return 0.0
        return (needed - bucket[0]) / per_second

    def charge(self, key: Hashable, amount: float, rate: float) -> float:
        """Take `amount` whether it is there or not; the seconds until the debt is paid off, 0.0 when none.

        For what has come in already and cannot be refused: whoever sent it is made to wait before the next.
        """
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = [max(1.0, rate), now]
        else:
            self._buckets.move_to_end(key)
            bucket[0] = min(max(1.0, rate), bucket[0] + (now - bucket[1]) * rate)
            bucket[1] = now
        bucket[0] -= amount
        return -bucket[0] / rate if bucket[0] < 0 else 0.0

    def debt(self, key: Hashable, rate: float) -> float:
        """The seconds until what `charge` took beyond the bucket is paid off; takes nothing."""
        bucket = self._buckets.get(key)
        if bucket is None or rate <= 0:
            return 0.0
        return max(0.0, -bucket[0] / rate - (self._clock() - bucket[1]))

    def __len__(self) -> int:
        return len(self._buckets)
