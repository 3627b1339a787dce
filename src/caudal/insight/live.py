"""Live values: from the commit to the screen without asking.

Ingest tells which series have something new, by their numbers alone and only those that somebody watches
(`Publisher`); the API process reads the values for each watcher through that watcher's own door (`Hub`).
Nothing of one tenant thus ever travels to where another could listen, and what is shown is committed.

Only the newest value counts: what comes faster than it is read is skipped, and nothing queues.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from secrets import token_hex
from struct import Struct
from typing import Any

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.errors import RateLimited, TooLarge
from caudal.insight.queries import Opener
from caudal.telemetry.batch import Batch

log = logs.get("live")

TOLD, WATCHED = "caudal_live", "caudal_watch"
MAX_WATCHED = 5000  # series, by one process
MAX_SERIES = 500  # of one watcher
MAX_WATCHERS = 500  # of one process
_LEASE = 30  # seconds
_PER_MESSAGE = 700  # numbers that fit into one notification (8000 bytes)
# How a row begins (telemetry/rows.py): nine fields, the first of four bytes, the series.
_HEAD = rb"\x00\x09\x00\x00\x00\x04"
_series = Struct(">i")


class Publisher:
    """In ingest: hears of each commit, tells of the watched series in it at most every `pause` seconds."""

    def __init__(self, pool: asyncpg.Pool[Any], *, pause: float = 0.05) -> None:
        self._pool = pool
        self._pause = pause
        self._pattern: re.Pattern[bytes] | None = None
        self._stale = asyncio.Event()
        self._stale.set()
        self._told: set[int] = set()  # no more than are watched
        self._some = asyncio.Event()

    def committed(self, batch: Batch) -> None:
        """Take note of what was committed. Costs nothing while nobody watches."""
        pattern = self._pattern
        if pattern is None:
            return
        for entry in batch.entries:
            for found in pattern.findall(entry.rows):
                self._told.add(_series.unpack(found)[0])
        if self._told:
            self._some.set()

    def changed(self, _: str = "") -> None:
        """Who watches what has changed: called on a notification of WATCHED, and after a gap in them."""
        self._stale.set()

    async def watch(self) -> None:
        """Keep what is watched up to date, for ever. A lease that ran out is noticed within its length."""
        while True:
            self._stale.clear()
            try:
                rows = await self._pool.fetch(
                    "select distinct unnest(series) from caudal.live_watch where until > now() limit $1",
                    MAX_WATCHED,
                )
                ids = [re.escape(_series.pack(row[0])) for row in rows]
                self._pattern = re.compile(_HEAD + b"(" + b"|".join(ids) + b")", re.DOTALL) if ids else None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("cannot read what is watched", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), _LEASE)

    async def tell(self) -> None:
        """Send what was noted, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            told, self._told = sorted(self._told), set()
            try:
                for at in range(0, len(told), _PER_MESSAGE):
                    text = ",".join(map(str, told[at : at + _PER_MESSAGE]))
                    await self._pool.execute("select pg_notify($1, $2)", TOLD, text)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                # Live values are a courtesy: the next ones will come.
                log.warning("cannot tell of live values", error=repr(error))
            await asyncio.sleep(self._pause)


class Value(msgspec.Struct, frozen=True):
    """The newest sample of a series. `ts` in ms since 1970; `quality` 0 good, 1 suspect, 2 bad."""

    id: int
    ts: int
    value: float | bool | str | None
    quality: int = 0


class _Watcher:
    def __init__(self, series: frozenset[int]) -> None:
        self.series = series
        self.fresh: set[int] = set(series)  # the first answer has them all
        self.wake = asyncio.Event()
        self.wake.set()


class Hub:
    """In the API: one listener for all who watch in this process."""

    def __init__(self, pool: asyncpg.Pool[Any], *, pause: float = 0.1) -> None:
        self._pool = pool
        self._pause = pause
        self._name = token_hex(8)
        self._watchers: set[_Watcher] = set()
        self._by_series: dict[int, set[_Watcher]] = {}
        self._changed = asyncio.Event()

    def heard(self, payload: str) -> None:
        """A notification of TOLD: wake whoever watches one of these series."""
        for word in payload.split(","):
            number = int(word) if word.isdecimal() else -1
            for watcher in self._by_series.get(number, ()):
                watcher.fresh.add(number)
                watcher.wake.set()

    def heard_all(self) -> None:
        """After a gap in the notifications: everything may be new."""
        for watcher in self._watchers:
            watcher.fresh |= watcher.series
            watcher.wake.set()

    async def register(self) -> None:
        """Tell ingest what is watched here, and go on telling, for ever."""
        told: frozenset[int] = frozenset()
        while True:
            self._changed.clear()
            wanted = frozenset(self._by_series)
            try:
                if wanted or told:
                    await self._pool.execute(
                        "select caudal.watch_series($1, $2, $3, $4)",
                        self._name, sorted(wanted), _LEASE, wanted != told,
                    )  # fmt: skip
                told = wanted
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("cannot say what is watched", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _LEASE / 3)

    async def follow(self, open_read: Opener, series: Iterable[int]) -> AsyncGenerator[list[Value], None]:
        """The newest values of these series, then those that change, for as long as it is iterated.

        Raises TooLarge or RateLimited when there is no room.
        """
        watcher = _Watcher(frozenset(series))
        if len(watcher.series) > MAX_SERIES:
            raise TooLarge(f"At most {MAX_SERIES} series can be watched at once.")
        room = MAX_WATCHED - len(self._by_series) - len(watcher.series - self._by_series.keys())
        if len(self._watchers) >= MAX_WATCHERS or room < 0:
            raise RateLimited("Too many are watching here. Try again in a minute.", retry_after=60)
        self._add(watcher)
        first = True
        try:
            while True:
                await watcher.wake.wait()
                watcher.wake.clear()
                fresh, watcher.fresh = sorted(watcher.fresh), set()
                values = await self._read(open_read, fresh)
                # The first answer comes even when it is empty: who watches what never reported is watching.
                if values or first:
                    yield values
                first = False
                await asyncio.sleep(self._pause)
        finally:
            self._remove(watcher)

    async def _read(self, open_read: Opener, ids: Sequence[int]) -> list[Value]:
        async with open_read() as connection:
            rows = await connection.fetch(
                "select series, (extract(epoch from ts) * 1000)::int8, v_num, v_bool, v_text,"
                " coalesce(qual, 0) from caudal.series_latest($1)", ids,
            )  # fmt: skip
        return [
            Value(
                number, ts, v_num if v_num is not None else v_bool if v_bool is not None else v_text, quality
            )
            for number, ts, v_num, v_bool, v_text, quality in rows
        ]

    def _add(self, watcher: _Watcher) -> None:
        self._watchers.add(watcher)
        for number in watcher.series:
            self._by_series.setdefault(number, set()).add(watcher)
        self._changed.set()

    def _remove(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
        for number in watcher.series:
            watchers = self._by_series[number]
            watchers.discard(watcher)
            if not watchers:
                del self._by_series[number]
        self._changed.set()
