"""Open alarms: what is beyond its limit now. They open and close with what is measured (ADR 0115)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from caudal.web.console.filters import midnight

Kind = Literal["low", "high", "day", "month"]
# Newest numbers that their device does not itself call bad.
_POINTS = """
select r.id as point, r.device_id as device, l.ts, l.v_num as value, coalesce(r.unit, '') as unit,
       case when l.v_num < r.limit_low then 'low' else 'high' end as kind,
       case when l.v_num < r.limit_low then r.limit_low else r.limit_high end as bound
from caudal.series_latest($1) l join caudal.series r on r.id = l.series
where (l.v_num < r.limit_low or l.v_num > r.limit_high) and coalesce(l.qual, 0) < 2
order by l.ts desc, r.id
"""
_LIMITED = """
select d.id, d.alarm_day, d.alarm_month from caudal.device d
where d.id = any($1::bigint[]) and (d.alarm_day is not null or d.alarm_month is not null)
"""
_SPENT = """
select series, coalesce(sum(total) filter (where day = $5), 0) as today, coalesce(sum(total), 0) as month
from caudal.series_consumption($1, $2, 'day', $3, $4) group by series
"""


class Alarm(msgspec.Struct, frozen=True):
    """One that is open: a point whose newest number is beyond its limit (`low`, `high`), or a device that has
    consumed more than its limit of the `day` or the `month`. `at` is the reading's instant; None of a sum."""

    kind: Kind
    device: int
    point: int
    value: float
    bound: float
    unit: str
    at: datetime | None = None


class Meter(msgspec.Struct, frozen=True):
    """A device's meter: the point that its consumption is counted by."""

    device: int
    point: int
    unit: str


async def read(
    connection: Any, points: Sequence[int], meters: Sequence[Meter], zone: ZoneInfo, today: date | None = None
) -> list[Alarm]:
    """Those of these points, the newest first, and of the devices of these meters; days are the `zone`'s."""
    found = [
        Alarm(row["kind"], row["device"], row["point"], row["value"], row["bound"], row["unit"], row["ts"])
        for row in await connection.fetch(_POINTS, list(points))
    ]
    limits = {row["id"]: row for row in await connection.fetch(_LIMITED, [meter.device for meter in meters])}
    chosen = {meter.point: meter for meter in meters if meter.device in limits}
    if not chosen:
        return found
    day = today or datetime.now(UTC).astimezone(zone).date()
    rows = await connection.fetch(
        _SPENT, list(chosen), zone.key, midnight(day.replace(day=1), zone),
        midnight(day + timedelta(days=1), zone), day,
    )  # fmt: skip
    for row in rows:
        meter = chosen[row["series"]]
        kinds: tuple[tuple[Kind, float], ...] = (("day", row["today"]), ("month", row["month"]))
        for kind, spent in kinds:
            bound = limits[meter.device][f"alarm_{kind}"]
            if bound is not None and spent > bound:
                found.append(Alarm(kind, meter.device, meter.point, spent, float(bound), meter.unit))
    return found
