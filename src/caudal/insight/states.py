"""Time in each state, of booleans and texts.

A state lasts until the next sample, but is believed for an hour at most: after that nobody knows, and the
time counts as unknown. The hours' rollups hold what lies between the samples of each hour; what lies between
hours, and at the ends, is laid out here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import msgspec

from caudal.core.errors import TooLarge
from caudal.insight import intervals, queries

HOLD = timedelta(hours=1)
MAX_HOURS = 200_000


class Piece(NamedTuple):
    """What one hour says of the states in it. `seconds` covers [first_ts, last_ts)."""

    bucket: datetime
    seconds: dict[str, float]
    first_ts: datetime
    last_ts: datetime
    last: str


class StateColumn(msgspec.Struct):
    """One series: for each bucket's start (`t`, ms since 1970) the seconds in each state; `unknown` too."""

    series: queries.SeriesInfo
    t: list[int]
    states: dict[str, list[float]]
    unknown: list[float]


class StateAnswer(msgspec.Struct):
    """Whole buckets that touch the span asked for. Time to come is in no state and not unknown either."""

    start: datetime
    end: datetime
    interval: str
    zone: str
    series: list[StateColumn]


def spread(pieces: Sequence[Piece], edges: Sequence[datetime], until: datetime) -> list[dict[str, float]]:
    """Seconds in each state for each [edges[i], edges[i+1]), from the hours of one series in order of time.

    `edges` are at full hours; nothing is told of time after `until`. The hour before edges[0] should be
    among `pieces`: its last state may last into the first bucket.
    """
    found: list[dict[str, float]] = [defaultdict(float) for _ in edges[1:]]

    def add(start: datetime, end: datetime, state: str) -> None:
        start, end = max(start, edges[0]), min(end, edges[-1], until)
        while start < end:
            place = bisect_right(edges, start) - 1
            stop = min(end, edges[place + 1])
            found[place][state] += (stop - start).total_seconds()
            start = stop

    for number, piece in enumerate(pieces):
        if edges[0] <= piece.bucket < edges[-1]:
            place = bisect_right(edges, piece.bucket) - 1
            for state, seconds in piece.seconds.items():
                found[place][state] += seconds
        following = pieces[number + 1].first_ts if number + 1 < len(pieces) else until
        add(piece.last_ts, min(following, piece.last_ts + HOLD), piece.last)
    return [dict(bucket) for bucket in found]


async def read(
    open_read: queries.Opener, series: Sequence[str], start: datetime, end: datetime, interval: str
) -> StateAnswer:
    """Time in each state by buckets of `interval`, minutes or longer.

    Raises InvalidInput, NotFound, TooLarge.
    """
    queries.check_span(start, end)
    wanted = intervals.parse(interval)
    async with queries.limited(open_read) as connection:
        infos = await queries.resolve(connection, series)
        zone = await queries.account_zone(connection)
        grid = intervals.grid(start, end, wanted, queries.zone_named(zone))
        level = intervals.level(wanted, grid, account_zone=False)
        if level == "sample":
            raise TooLarge("interval: the time in states is told by minutes at the finest.")
        seconds = 60 if level == "minute" else 3600
        if (grid.hi - grid.lo).total_seconds() / seconds * len(infos) > MAX_HOURS:
            raise TooLarge(f"More than {MAX_HOURS:,} {level}s; ask for a shorter span or fewer series.")
        rows = await connection.fetch(
            "select series, bucket, states, state_first_ts, state_last_ts, state_last"
            " from caudal.series_pieces($1, $2, $3, $4) where state_last_ts is not null"
            " order by series, bucket",
            [info.id for info in infos], level, grid.lo - HOLD, grid.hi,
        )  # fmt: skip
        until = await connection.fetchval("select now()")
    pieces: dict[int, list[Piece]] = {info.id: [] for info in infos}
    for number, bucket, states, first_ts, last_ts, last in rows:
        pieces[number].append(Piece(bucket, states or {}, first_ts, last_ts, last))
    edges = grid.edges or [grid.lo + i * grid.step for i in range(len(grid) + 1) if grid.step]
    columns = [_column(info, spread(pieces[info.id], edges, until), edges, until) for info in infos]
    return StateAnswer(grid.lo, grid.hi, wanted.name, zone, columns)


def _column(
    info: queries.SeriesInfo, buckets: list[dict[str, float]], edges: Sequence[datetime], until: datetime
) -> StateColumn:
    names = sorted({name for bucket in buckets for name in bucket})
    states = {name: [bucket.get(name, 0.0) for bucket in buckets] for name in names}
    passed = [max(0.0, (min(end, until) - start).total_seconds()) for start, end in pairwise(edges)]
    unknown = [max(0.0, whole - sum(bucket.values())) for whole, bucket in zip(passed, buckets, strict=True)]
    return StateColumn(info, [queries.millis(edge) for edge in edges[:-1]], states, unknown)
