"""What the overview shows, read in one transaction of the person's tenant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from caudal.insight import intervals
from caudal.web.console import alarms
from caudal.web.console.filters import Filters, buckets, midnight

# Beyond it a page would take seconds; it says what it left out.
MAX_SERIES = 2000
BARS = 8
LATEST = 25

_SERIES = """
select r.id, r.device_id, d.name as device, coalesce(nullif(d.display_name, ''), d.name) as device_title,
       r.name as point, coalesce(nullif(r.display_name, ''), r.name) as title, r.kind, coalesce(r.unit, '') as unit,
       coalesce(s.display_name, s.name) as site,
       -- A device's meter: the point `valor`, or else the first that counts.
       (r.kind in ('counter', 'delta') and r.id = first_value(r.id) over (
          partition by r.device_id order by r.kind not in ('counter', 'delta'), r.name <> 'valor', r.id)) as meter
from caudal.series r join caudal.device d on d.id = r.device_id left join caudal.site s on s.id = d.site_id
where ($1::bigint is null or d.site_id = $1) and ($2::bigint is null or d.id = $2)
order by r.id limit $3
"""  # noqa: E501

_DEVICES = """
select count(*) filter (where d.is_online) as online,
       count(*) filter (where not d.is_online and d.last_heard is not null) as offline,
       count(*) filter (where d.last_heard is null) as never, count(*) as "all"
from caudal.device d
where d.status <> 'rejected' and ($1::bigint is null or d.site_id = $1) and ($2::bigint is null or d.id = $2)
"""


class Series(msgspec.Struct, frozen=True):
    """A point, with its device and site as people call them."""

    id: int
    device_id: int
    device: str
    device_title: str
    point: str
    title: str
    kind: str
    unit: str
    site: str | None
    meter: bool


class Latest(msgspec.Struct, frozen=True):
    """The newest value of a point; `quality` 0 good, 1 suspect, 2 bad."""

    series: Series
    ts: datetime
    value: float | bool | str | None
    quality: int


class Month(msgspec.Struct, frozen=True):
    """Consumption in one unit: this month, last month, and last month by the same day."""

    unit: str
    this: float
    last: float
    same: float


class Bar(msgspec.Struct, frozen=True):
    """One device's part; `device_id` None stands for all the others, `count` of them."""

    device_id: int | None
    title: str
    total: float
    share: float
    count: int = 1


class Overview(msgspec.Struct):
    """Everything on the page."""

    narrowed: bool
    measures: list[str]
    measure: str
    devices: dict[str, int]
    today: int
    yesterday: int
    months: list[Month]
    timeline: list[tuple[datetime, float]]
    bars: list[Bar]
    latest: list[Latest]
    alarms: list[alarms.Alarm]
    titles: dict[int, tuple[str, str]]
    """Of each point: its device and itself, as people call them."""
    sites: list[tuple[int, str]]
    choices: list[tuple[int, str]]


def previous(day: date) -> date:
    """The first day of the month before."""
    return (day.replace(day=1) - timedelta(days=1)).replace(day=1)


async def read(connection: Any, filters: Filters, zone: ZoneInfo, measure: str | None) -> Overview:
    """Read the overview; `measure` is `readings` or a unit (`unit:kWh`), the first there is when left out."""
    await connection.execute("set local statement_timeout = '8s'")
    rows = await connection.fetch(_SERIES, filters.site_id, filters.device_id, MAX_SERIES + 1)
    found = [Series(**row) for row in rows[:MAX_SERIES]]
    units = sorted({one.unit for one in found if one.meter})
    measures = [*(f"unit:{unit}" for unit in units), "readings"]
    if measure not in measures:
        measure = measures[0]
    devices = dict(await connection.fetchrow(_DEVICES, filters.site_id, filters.device_id))
    today = datetime.now(UTC).astimezone(zone).date()
    start = midnight(today - timedelta(days=1), zone)
    per_day: dict[date, int] = {}
    for _, at, count in await _readings(
        connection, found, zone, "day", start, midnight(today + timedelta(days=1), zone)
    ):
        day = at.astimezone(zone).date()
        per_day[day] = per_day.get(day, 0) + int(count)
    edges = buckets(filters, zone)
    if measure == "readings":
        cells = await _readings(connection, found, zone, filters.unit, filters.start, filters.end)
    else:
        chosen = [one for one in found if one.meter and one.unit == measure.removeprefix("unit:")]
        cells = await _consumed(connection, chosen, zone, filters)
    by_id = {one.id: one for one in found}
    totals: dict[datetime, float] = dict.fromkeys(edges[:-1], 0.0)
    by_device: dict[int, float] = {}
    for series, start, total in cells:
        if start in totals:
            totals[start] += total
            device = by_id[series].device_id
            by_device[device] = by_device.get(device, 0.0) + total
    return Overview(
        narrowed=len(rows) > MAX_SERIES,
        measures=measures,
        measure=measure,
        devices=devices,
        today=per_day.get(today, 0),
        yesterday=per_day.get(today - timedelta(days=1), 0),
        months=await _months(connection, found, zone, today),
        timeline=list(totals.items()) if cells else [],
        bars=_bars(by_device, {one.device_id: one.device_title for one in found}),
        latest=await latest(connection, found),
        alarms=await alarms.read(
            connection, [one.id for one in found],
            [alarms.Meter(one.device_id, one.id, one.unit) for one in found if one.meter], zone,
        ),
        titles={one.id: (one.device_title, one.title) for one in found},
        sites=[tuple(row) for row in await connection.fetch(
            "select id, coalesce(nullif(display_name, ''), name) from caudal.site order by 2 limit 500")],
        choices=[tuple(row) for row in await connection.fetch(
            "select id, coalesce(nullif(display_name, ''), name) from caudal.device"
            " where $1::bigint is null or site_id = $1 or id = $2 order by 2 limit 500",
            filters.site_id, filters.device_id)],
    )  # fmt: skip


async def _readings(
    connection: Any, series: Sequence[Series], zone: ZoneInfo, unit: str, start: datetime, end: datetime
) -> list[tuple[int, datetime, float]]:
    """(series, start of the bucket, samples in it); of every kind, numbers and states alike."""
    interval = intervals.parse({"hour": "1h", "day": "1d", "month": "1mo"}[unit])
    grid = intervals.grid(start, end, interval, zone)
    level = intervals.level(interval, grid, account_zone=True)
    rows = await connection.fetch(
        "select series, at, n from caudal.series_slots($1, $2, $3, $4, $5, $6, $7, false)",
        [one.id for one in series], level, zone.key, grid.lo, grid.hi, grid.step, grid.edges,
    )  # fmt: skip
    return [(row[0], row[1], float(row[2])) for row in rows]


async def _consumed(
    connection: Any, series: Sequence[Series], zone: ZoneInfo, filters: Filters
) -> list[tuple[int, datetime, float]]:
    rows = await connection.fetch(
        "select series, day, hour, total from caudal.series_consumption($1, $2, $3, $4, $5)",
        [one.id for one in series], zone.key, filters.unit, filters.start, filters.end,
    )  # fmt: skip
    return [(row[0], row[2] or midnight(row[1], zone), row[3] or 0.0) for row in rows]


_MONTHS = """
select m.unit, coalesce(sum(c.total) filter (where c.day >= $5), 0) as this,
       coalesce(sum(c.total) filter (where c.day < $5), 0) as last,
       coalesce(sum(c.total) filter (where c.day < $6), 0) as same
from unnest($1::int[], $7::text[]) as m(id, unit)
left join caudal.series_consumption($1, $2, 'day', $3, $4) c on c.series = m.id
group by m.unit order by m.unit
"""


async def _months(connection: Any, series: Sequence[Series], zone: ZoneInfo, today: date) -> list[Month]:
    """This month, the last and the last by the same day, from one look at the days of both."""
    meters = [one for one in series if one.meter]
    if not meters:
        return []
    this, last = today.replace(day=1), previous(today)
    tomorrow = today + timedelta(days=1)
    same = min(last + (tomorrow - this), this)
    rows = await connection.fetch(
        _MONTHS, [one.id for one in meters], zone.key, midnight(last, zone), midnight(tomorrow, zone), this,
        same, [one.unit for one in meters],
    )  # fmt: skip
    return [Month(row["unit"], row["this"], row["last"], row["same"]) for row in rows]


def _bars(by_device: dict[int, float], titles: dict[int, str]) -> list[Bar]:
    ranked = sorted(by_device.items(), key=lambda pair: (-pair[1], pair[0]))
    top = max((total for _, total in ranked), default=0.0) or 1.0
    bars = [Bar(device, titles[device], total, max(0.0, total / top)) for device, total in ranked[:BARS]]
    if rest := ranked[BARS:]:
        total = sum(total for _, total in rest)
        bars.append(Bar(None, "", total, max(0.0, min(1.0, total / top)), len(rest)))
    return bars


async def latest(connection: Any, series: Sequence[Series], limit: int = LATEST) -> list[Latest]:
    """The newest values of these points, the newest first."""
    by_id = {one.id: one for one in series}
    rows = await connection.fetch(
        "select * from caudal.series_latest($1) order by ts desc, series limit $2", list(by_id), limit
    )
    return [Latest(by_id[row["series"]], row["ts"], value_of(row), row["qual"] or 0) for row in rows]


def value_of(row: Any) -> float | bool | str | None:
    """The one value of a sample's three columns."""
    for name in ("v_num", "v_bool", "v_text"):
        if row[name] is not None:
            found: float | bool | str = row[name]
            return found
    return None
