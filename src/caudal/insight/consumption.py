"""Consumption: how much a counter or a delta counted, by hour, day and month of the account's own zone.

A counter's dial is differenced, never summed. What it grew between two readings belongs to the bucket of
the later one ("last before"), so that hours add up to days and days to months, across gaps too. A drop is a
restart from zero and counts what the dial shows after it, unless it is within 0.1% of the reading before:
that is jitter, taken as the small negative step it is, which the next step makes good. Deltas are summed.
Gauges and states have no consumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal

import asyncpg
import msgspec

from caudal.core.errors import InvalidInput, TooLarge
from caudal.insight import intervals, queries

Unit = Literal["hour", "day", "month"]
_INTERVALS = {"hour": "1h", "day": "1d", "month": "1mo"}
MAX_SERIES = 2000
MAX_BUCKETS = 100_000  # of one report


class Bucket(msgspec.Struct, frozen=True):
    """One hour, day or month. `start` is its first instant; `total` in the series' unit."""

    start: datetime
    total: float
    readings: int
    resets: int


class Consumption(msgspec.Struct, frozen=True):
    """One series' buckets that have readings, in order, and their sum."""

    series: queries.SeriesInfo
    total: float
    buckets: list[Bucket]


class Report(msgspec.Struct, frozen=True):
    """The whole buckets that touch the span asked for, in the account's zone."""

    start: datetime
    end: datetime
    unit: Unit
    zone: str
    series: list[Consumption]


async def read(
    open_read: queries.Opener, series: Sequence[str], unit: Unit, start: datetime, end: datetime
) -> Report:
    """Consumption of `series` (ids or device/point) in the buckets that touch [start, end).

    Raises InvalidInput for a gauge or a state, NotFound, TooLarge.
    """
    queries.check_span(start, end)
    async with queries.limited(open_read) as connection:
        infos = await queries.resolve(connection, series, limit=MAX_SERIES)
        for info in infos:
            if info.kind not in ("counter", "delta"):
                raise InvalidInput(
                    f"{info.device}/{info.point} is a {info.kind}: it measures, it does not count. "
                    "Consumption comes from counters and deltas."
                )
        return await of(connection, infos, unit, start, end)


async def of(
    connection: asyncpg.Connection[Any],
    infos: Sequence[queries.SeriesInfo],
    unit: Unit,
    start: datetime,
    end: datetime,
) -> Report:
    """The same for series already found, inside a tenant's transaction."""
    name = await queries.account_zone(connection)
    zone = queries.zone_named(name)
    found = intervals.grid(start, end, intervals.parse(_INTERVALS[unit]), zone)
    if len(found) * len(infos) > MAX_BUCKETS:
        raise TooLarge(f"More than {MAX_BUCKETS} buckets; ask for a shorter span or fewer series.")
    rows = await connection.fetch(
        "select series, day, hour, total, n, resets from caudal.series_consumption($1, $2, $3, $4, $5)"
        " order by series, day, hour",
        [info.id for info in infos], name, unit, found.lo, found.hi,
    )  # fmt: skip
    starts: dict[date, datetime] = {}
    buckets: dict[int, list[Bucket]] = {info.id: [] for info in infos}
    for number, day, hour, total, readings, resets in rows:
        first = hour or starts.get(day)
        if first is None:
            first = starts[day] = intervals.midnight(day, zone)
        buckets[number].append(Bucket(first, total, readings, resets))
    return Report(
        found.lo,
        found.hi,
        unit,
        name,
        [Consumption(info, sum(b.total for b in buckets[info.id]), buckets[info.id]) for info in infos],
    )
