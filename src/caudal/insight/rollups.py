"""The refresher: keeps minutes, hours and days true to the samples (core/migrations/0301_refresher.sql).

Any number of processes may run one; the database lets one work at a time. Answers never depend on it: they
are exact at every moment, and it makes them fast.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any, NamedTuple

import asyncpg

from caudal.core import logs
from caudal.core.metrics import Metrics

log = logs.get("rollups")

LEAST, MOST = 50, 20_000
BUSY = 1000
"""Marks in one turn from which on somebody is taken to be replaying, and the machine to be theirs."""
FEW = 50
"""Hours that a step makes at most while that is so: it is over before a batch of theirs is late for it."""
SHARE_BUSY, SHARE = 0.1, 0.5
"""Of the time that is worked while that is so, and otherwise."""
REST = 4.0
"""Seconds at least between steps while that is so: each ends an epoch, after which every writer marks all of
its hours once more, and all of those marks are taken up once more."""


class Step(NamedTuple):
    """What one step did: hours made anew, whether more wait, and how many marks were taken up."""

    made: int
    more: bool
    taken: int = 0


class RollupMetrics:
    """What an operator watches of the refresher."""

    def __init__(self, metrics: Metrics) -> None:
        self.hours = metrics.counter("rollup_hours", "Hours of a series made anew")
        self.waiting = metrics.gauge("rollup_waiting", "Whether hours wait to be made anew (1) or not (0)")
        self.threshold = metrics.gauge(
            "rollup_threshold_timestamp_seconds", "Start of the first hour that is read from the samples"
        )
        self.failures = metrics.counter("rollup_failures", "Steps that failed and were tried again")


class Refresher:
    """Makes stale hours anew and moves the threshold on.

    `grace` is how long after its end an hour is left to late-comers before it is materialised; `poll` is the
    pause between looks at an idle database; `target` the seconds that one transaction should take, to which
    the number of hours in it adapts.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        metrics: Metrics,
        *,
        grace: timedelta = timedelta(minutes=5),
        poll: float = 1.0,
        target: float = 0.5,
    ) -> None:
        self._pool = pool
        self._grace = grace
        self._poll = poll
        self._target = target
        self._budget = 500
        self._after = 0
        self._metrics = RollupMetrics(metrics)

    async def advance(self, now: datetime | None = None) -> bool:
        """Move the threshold on by an hour if one is over; `now` is the database's clock unless given."""
        try:
            moved: bool = await self._pool.fetchval(
                "select caudal.rollup_advance(coalesce($1, now()), $2)", now, self._grace
            )
        except asyncpg.LockNotAvailableError:
            log.warning("a writer holds its transaction open; the threshold stays for now")
            return False
        return moved

    async def step(self) -> Step:
        """Take up what was marked until now, and one transaction's worth of stale hours; nothing when another
        process is at it."""
        started = perf_counter()
        try:
            await self._pool.fetchval("select caudal.rollup_turn()")
        except asyncpg.LockNotAvailableError:
            log.warning("a writer holds its transaction open; its marks and later ones wait")
        row = await self._pool.fetchrow(
            "select * from caudal.rollup_step($1, $2, $3, $4)", self._budget, self._after, BUSY, FEW
        )
        if row and row["next"] is not None:
            self._after = row["next"]
        made = row["made"] or 0 if row else 0
        more = bool(row and row["more"])
        took = perf_counter() - started
        if made == self._budget and took < self._target / 2:
            self._budget = min(self._budget * 2, MOST)
        elif took > self._target * 2:
            self._budget = max(self._budget // 2, LEAST)
        self._metrics.hours.inc(made)
        self._metrics.waiting.set(more)
        return Step(made, more, (row["taken"] or 0) if row else 0)

    async def settle(self) -> int:
        """Work until nothing waits; returns the hours made."""
        made = 0
        while True:
            step = await self.step()
            made += step.made
            if not step.more:
                return made

    async def run(self) -> None:
        """Work for ever, half of the time at most, and a tenth while somebody replays history: answers are
        exact without us, and ingest goes first."""
        first = True
        while True:
            started = perf_counter()
            try:
                moved = await self.advance()
                step = await self.step()
                if moved or first:
                    first = False
                    threshold = await self._pool.fetchval("select caudal.rollup_threshold_now()")
                    self._metrics.threshold.set(threshold.timestamp())
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                # Halve: what failed may have been too much at once (memory, a time limit).
                self._budget = max(self._budget // 2, LEAST)
                self._metrics.failures.inc()
                log.error("a step failed and will be tried again", error=repr(error))
                await asyncio.sleep(self._poll * 5)
                continue
            took = perf_counter() - started
            if step.taken >= BUSY:
                await asyncio.sleep(max(took * (1 / SHARE_BUSY - 1), REST))
            else:
                busy = moved or step.more
                await asyncio.sleep(min(took * (1 / SHARE - 1), self._poll) if busy else self._poll)
