"""The series API's queries: samples and aggregates of several points at once, for one tenant.

Everything is read as the role `caudal_app`, through functions that answer for the transaction's tenant alone
(core/migrations/0302_queries.sql), and everything is exact at the moment it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

import asyncpg
import msgspec

from caudal.core.errors import InvalidInput, NotFound, TooLarge
from caudal.insight import intervals

Aggregation = Literal["avg", "min", "max", "sum", "first", "last", "count"]
AGGREGATIONS: tuple[Aggregation, ...] = ("avg", "min", "max", "sum", "first", "last", "count")
MAX_SERIES = 50
MAX_BUCKETS = 20_000  # of one series
MAX_POINTS = 200_000  # of one answer
TIMEOUT = "15s"

_RESOLVE = """
select r.id, d.id as device_id, d.name as device, coalesce(d.display_name, d.name) as device_title,
       r.name as point, coalesce(r.display_name, r.name) as title, r.kind, r.unit, s.name as site
from caudal.series r
join caudal.device d on d.id = r.device_id
left join caudal.site s on s.id = d.site_id
"""


Opener = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a read-only transaction for one tenant, as `Door.read` does."""


@asynccontextmanager
async def limited(open_read: Opener) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A transaction whose statements end after TIMEOUT. Raises TooLarge when one did."""
    async with open_read() as connection:
        await connection.execute(f"set local statement_timeout = '{TIMEOUT}'")
        try:
            yield connection
        except asyncpg.QueryCanceledError as error:
            raise TooLarge("That took longer than 15 s; narrow the span or widen the interval.") from error


class SeriesInfo(msgspec.Struct, frozen=True):
    """One point of one device, as people know it."""

    id: int
    device_id: int
    device: str
    device_title: str
    point: str
    title: str
    kind: str
    unit: str | None
    site: str | None


class SeriesQuery(msgspec.Struct, frozen=True):
    """What to read. `series` holds ids or `device/point` names; `to` is exclusive.

    `interval` is `raw`, or as `intervals.parse` takes it; left out, it is chosen so that `pixels` buckets
    suffice. `zone` is the account's own unless given.
    """

    series: tuple[str, ...]
    start: datetime
    end: datetime
    interval: str | None = None
    pixels: int = 1000
    aggregations: tuple[Aggregation, ...] = ("avg", "min", "max")
    zone: str | None = None
    limit: int = 20_000


class Column(msgspec.Struct):
    """One series' answer. `t` is in ms since 1970: the start of each bucket that has data, or each sample.

    Where data is missing a `t` with null values stands, so that a line drawn through it breaks; `gaps` lists
    those spans. `values` holds one list for each aggregation, or `value` and `quality` for raw samples.
    """

    series: SeriesInfo
    t: list[int]
    values: dict[str, list[Any]]
    gaps: list[tuple[int, int]]
    truncated_at: int | None = None


class Answer(msgspec.Struct):
    """What was read, and `notes` in words on everything that is not as asked."""

    start: datetime
    end: datetime
    interval: str
    interval_seconds: float
    zone: str
    level: str
    series: list[Column]
    truncated: bool = False
    notes: list[str] = []


def millis(at: datetime) -> int:
    """Milliseconds since 1970."""
    return int(at.timestamp() * 1000)


async def resolve(
    connection: asyncpg.Connection[Any], wanted: Sequence[str], *, limit: int = MAX_SERIES
) -> list[SeriesInfo]:
    """The series that ids or `device/point` names mean, in that order; NotFound names what there is not."""
    if not wanted:
        raise InvalidInput("series: name at least one, by id or as device/point.")
    if len(wanted) > limit:
        raise TooLarge(f"series: {len(wanted)} at once; at most {limit}. Ask in parts.")
    ids = [int(name) for name in wanted if name.isdecimal() and len(name) < 10]
    rows = await connection.fetch(
        _RESOLVE
        + "where r.id = any($1) or (d.name, r.name) in (select * from unnest($2::text[], $3::text[]))",
        ids,
        *_names(wanted),
    )
    found = {}
    for row in rows:
        info = SeriesInfo(**row)
        found[str(info.id)] = found[f"{info.device}/{info.point}"] = info
    if absent := [name for name in wanted if name not in found]:
        raise NotFound(f"There is no series {', '.join(absent)}.")
    return list({info.id: info for info in (found[name] for name in wanted)}.values())


def _names(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    # A device's name may hold slashes, and so may a point's: every way to cut the name is tried.
    pairs = [
        (name[:at], name[at + 1 :])
        for name in wanted
        for at, letter in enumerate(name)
        if letter == "/" and len(name) <= 512
    ]
    return [device for device, _ in pairs], [point for _, point in pairs]


async def account_zone(connection: asyncpg.Connection[Any]) -> str:
    """The time zone of the transaction's tenant."""
    found: str | None = await connection.fetchval("select time_zone from caudal.tenant")
    if found is None:
        raise NotFound("There is no such account.")
    return found


def zone_named(name: str) -> ZoneInfo:
    """The zone, or InvalidInput."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(f"zone: {name!r} is no time zone; write it as America/Sao_Paulo.") from error


def check_span(start: datetime, end: datetime) -> None:
    """Refuse spans that are none."""
    if start.tzinfo is None or end.tzinfo is None:
        raise InvalidInput("from, to: give instants with their offset, as 2026-01-31T00:00:00Z.")
    if end <= start:
        raise InvalidInput("from, to: the span is empty; `to` must be later than `from`.")
    if start.year < 1971 or end.year > 2200:
        raise InvalidInput("from, to: the span reaches beyond 1971 to 2200.")


async def read(open_read: Opener, query: SeriesQuery) -> Answer:
    """Read what `query` asks for. Raises InvalidInput, NotFound, TooLarge."""
    check_span(query.start, query.end)
    if not 1 <= query.pixels <= MAX_BUCKETS:
        raise InvalidInput(f"pixels: between 1 and {MAX_BUCKETS}.")
    if not 1 <= query.limit <= MAX_POINTS:
        raise InvalidInput(f"limit: between 1 and {MAX_POINTS}.")
    if unknown := set(query.aggregations) - set(AGGREGATIONS):
        raise InvalidInput(f"agg: {', '.join(sorted(unknown))} is none of {', '.join(AGGREGATIONS)}.")
    async with limited(open_read) as connection:
        infos = await resolve(connection, query.series)
        own = await account_zone(connection)
        if query.interval == "raw":
            return await _raw(connection, query, infos, query.zone or own)
        return await _aggregated(connection, query, infos, own)


async def _raw(
    connection: asyncpg.Connection[Any], query: SeriesQuery, infos: list[SeriesInfo], zone: str
) -> Answer:
    each = max(1, min(query.limit, MAX_POINTS // len(infos)))
    rows = await connection.fetch(
        "select * from caudal.series_samples($1, $2, $3, $4)",
        [info.id for info in infos], query.start, query.end, each + 1,
    )  # fmt: skip
    columns = {info.id: Column(info, [], {"value": [], "quality": []}, []) for info in infos}
    for series, ts, v_num, v_bool, v_text, qual in rows:
        column = columns[series]
        if len(column.t) == each:
            column.truncated_at = millis(ts)
            continue
        column.t.append(millis(ts))
        column.values["value"].append(
            v_num if v_num is not None else v_bool if v_bool is not None else v_text
        )
        column.values["quality"].append(qual)
    answer = Answer(query.start, query.end, "raw", 0.0, zone, "sample", list(columns.values()))
    for column in answer.series:
        if column.truncated_at is not None:
            answer.truncated = True
            answer.notes.append(
                f"{column.series.device}/{column.series.point} has more than {each} samples in this span; "
                "the first are given. Ask again from truncated_at, with an interval, or for CSV or Parquet."
            )
    return answer


def _choose(query: SeriesQuery, zone: ZoneInfo) -> tuple[intervals.Interval, list[str]]:
    span = query.end - query.start
    if query.interval is None:
        return intervals.fitting(span, query.pixels), []
    interval = intervals.parse(query.interval)
    if span.total_seconds() / interval.seconds <= MAX_BUCKETS:
        return interval, []
    coarser = intervals.fitting(span, MAX_BUCKETS)
    return coarser, [
        f"{interval.name} would give more than {MAX_BUCKETS} buckets; {coarser.name} was taken instead."
    ]


async def _aggregated(
    connection: asyncpg.Connection[Any], query: SeriesQuery, infos: list[SeriesInfo], own: str
) -> Answer:
    zone = zone_named(query.zone or own)
    if "sum" in query.aggregations:
        for info in infos:
            if info.kind != "delta":
                raise InvalidInput(
                    f"agg: {info.device}/{info.point} is a {info.kind}; its numbers have no sum. "
                    "Take avg, or /api/series/consumption for a counter."
                )
    interval, notes = _choose(query, zone)
    found = intervals.grid(query.start, query.end, interval, zone)
    if len(found) * len(infos) > MAX_POINTS:
        each = max(1, MAX_POINTS // len(infos))
        coarser = intervals.fitting(query.end - query.start, each - 1)
        notes = [
            f"{interval.name} would give more than {MAX_POINTS} points; {coarser.name} was taken instead."
        ]
        interval, found = coarser, intervals.grid(query.start, query.end, coarser, zone)
    level = intervals.level(interval, found, account_zone=zone.key == own)
    ends = bool({"first", "last"} & set(query.aggregations))
    # Whole columns come as arrays: a year of hours is one row, and no Python touches its values.
    wanted = ", ".join(f"array_agg({_COLUMNS[name]})" for name in query.aggregations)
    rows = await connection.fetch(
        f"select series, array_agg((date_part('epoch', at) * 1000)::int8), {wanted} from ("
        " select * from caudal.series_slots($1, $2, $3, $4, $5, $6, $7, $8) where num > 0 or $9"
        " order by series, at) slots group by series",
        [info.id for info in infos], level, zone.key, found.lo, found.hi, found.step, found.edges, ends,
        query.aggregations == ("count",),
    )  # fmt: skip
    by_series = {row[0]: row for row in rows}
    step = interval.seconds * 1000
    columns = [_column(info, by_series.get(info.id), query.aggregations, step) for info in infos]
    seconds = interval.seconds
    return Answer(found.lo, found.hi, interval.name, seconds, zone.key, level, columns, notes=notes)


_COLUMNS: dict[Aggregation, str] = {
    "avg": "vsum / nullif(num, 0)", "min": "vmin", "max": "vmax", "sum": "vsum", "first": "first_v",
    "last": "last_v", "count": "n",
}  # fmt: skip


def _column(info: SeriesInfo, row: Any, wanted: Sequence[Aggregation], step: float) -> Column:
    t: list[int] = row[1] if row else []
    values: dict[str, list[Any]] = {name: row[place] if row else [] for place, name in enumerate(wanted, 2)}
    places = gaps_in(t, step)
    gaps = [(int(t[place - 1] + step), t[place]) for place in places]
    for place, (start, _) in zip(reversed(places), reversed(gaps), strict=True):
        t.insert(place, start)
        for column in values.values():
            column.insert(place, None)
    return Column(info, t, values, gaps)


def gaps_in(t: Sequence[int], step: float) -> list[int]:
    """Where data is missing: each `i` with a gap between t[i - 1] and t[i] (ms).

    A gap is longer than both two steps and three usual spacings. The usual one is the median, so that a
    series that reports once an hour has no gap in every minute.
    """
    if len(t) < 2:
        return []
    spacings = [after - before for before, after in pairwise(t)]
    limit = max(2 * step, 3 * sorted(spacings)[len(spacings) // 2])
    return [place for place, spacing in enumerate(spacings, 1) if spacing > limit]


async def latest(open_read: Opener, site: str | None = None) -> list[dict[str, Any]]:
    """The newest sample of every point of a site (of the whole account without one), with what it belongs to.

    `age` is in seconds at the database's clock, negative where a device's clock is ahead.
    """
    async with limited(open_read) as connection:
        if site is not None and not await connection.fetchval(
            "select exists (select from caudal.site where name = $1)", site
        ):
            raise NotFound(f"There is no site {site}.")
        infos = await connection.fetch(
            _RESOLVE + "where $1::text is null or s.name = $1 order by d.name, r.name limit 20001", site
        )
        if len(infos) > MAX_BUCKETS:
            raise TooLarge("More than 20,000 points at once; ask by site.")
        rows = await connection.fetch(
            "select *, extract(epoch from now() - ts)::float8 as age from caudal.series_latest($1)",
            [info["id"] for info in infos],
        )
    by_id = {row["series"]: row for row in rows}
    found = []
    for info in infos:
        row = by_id.get(info["id"])
        value = None
        if row:
            value = next((row[name] for name in ("v_num", "v_bool", "v_text") if row[name] is not None), None)
        found.append(
            {
                **info,
                "ts": row["ts"] if row else None,
                "value": value,
                "quality": row["qual"] if row else None,
                "age": row["age"] if row else None,
            }
        )
    return found
