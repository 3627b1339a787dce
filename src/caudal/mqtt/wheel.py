"""One timer for everything that waits for whole seconds: keep-alives, wills, session expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timed(Protocol):
    """Something that waits in the wheel. `slot` is the wheel's own (the second it waits for, or -1)."""

    slot: int

    def due(self) -> None: ...


class Wheel:
    """Buckets of one second. Fifteen thousand keep-alives cost one callback a second.

    Its clock is virtual: when the loop has been held up, a tick counts for no more than two seconds, so that
    nobody is thrown out for a silence that was ours (what they sent is still in their sockets).
    """

    def __init__(self, on_tick: Callable[[], None] | None = None) -> None:
        self.now = 0
        self._buckets: dict[int, set[Timed]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._on_tick = on_tick
        self._last = 0.0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        self._handle = loop.call_later(1.0, self._tick, loop)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None

    def add(self, item: Timed, seconds: float) -> None:
        """Calls `item.due()` after that many seconds (at most two more); moves it if it waits."""
        self.remove(item)
        item.slot = self.now + int(seconds) + 1
        self._buckets.setdefault(item.slot, set()).add(item)

    def remove(self, item: Timed) -> None:
        if item.slot >= 0:
            bucket = self._buckets.get(item.slot)
            if bucket is not None:
                bucket.discard(item)
            item.slot = -1

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        held_up = now - self._last > 2.0
        # Due times are counted from the last due time, not from when we ran, or the clock would fall behind.
        self._last = now if held_up else self._last + 1.0
        self._handle = loop.call_at(self._last + 1.0, self._tick, loop)
        self.advance(2 if held_up else 1)

    def advance(self, seconds: int) -> None:
        """Moves the clock on; a test may do so by hand."""
        for _ in range(seconds):
            self.now += 1
            for item in self._buckets.pop(self.now, ()):
                if item.slot == self.now:  # not taken out by one that was due before it
                    item.slot = -1
                    item.due()
        if self._on_tick is not None:
            self._on_tick()
