"""Turns: no connection holds the loop for longer than a moment, however much one read brought in.

A chunk of 256 kB is several milliseconds of work. Eight connections that flood would make of every pass of
the loop as many times that, and everything else, a commit's next step or another tenant's message, waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Protocol

TURN_BYTES = 16_384
"""What one connection may have parsed at a time."""
SLICE_SECONDS = 0.001
"""How long those that wait for a turn keep the loop, all together."""
WAITING_MAX = 4 << 20
"""Bytes that may wait for a turn; beyond it chunks are parsed whole, as memory matters more."""

KEPT_MAX = 32 << 20
"""Bytes that may wait in connections that were held back after a turn; beyond it the same."""


class Taker(Protocol):
    def take_turn(self) -> None:
        """Go on with what waits; may ask for another turn."""


class Turns:
    """Who has more to parse, in order. One for each loop."""

    __slots__ = ("_scheduled", "_waiting", "bytes", "kept")

    def __init__(self) -> None:
        self._waiting: deque[tuple[Taker, int]] = deque()
        self._scheduled = False
        self.bytes = 0
        self.kept = 0  # by those that were held back in the middle of a chunk; they count themselves

    def share(self, size: int) -> int:
        """How many of `size` bytes may be parsed before others have their turn."""
        return TURN_BYTES if self.bytes < WAITING_MAX and self.kept < KEPT_MAX else size

    def wait(self, taker: Taker, size: int) -> None:
        """Have `taker.take_turn` called in its turn; it holds `size` bytes meanwhile."""
        self._waiting.append((taker, size))
        self.bytes += size
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._scheduled = False
        until = perf_counter() + SLICE_SECONDS
        for _ in range(len(self._waiting)):
            taker, size = self._waiting.popleft()
            self.bytes -= size
            taker.take_turn()
            if perf_counter() >= until:
                break
        if self._waiting:
            self._schedule()
