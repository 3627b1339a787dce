"""Intervals, and where their buckets begin in a zone with daylight saving."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from caudal.core.errors import InvalidInput

_UNITS = {"s": 1, "m": 60, "h": 3600}
# What a chart may choose from: steps that people read at a glance.
LADDER = (
    "1s", "2s", "5s", "10s", "15s", "30s", "1m", "2m", "5m", "10m", "15m", "30m",
    "1h", "2h", "3h", "6h", "12h", "1d", "7d", "1mo", "3mo", "12mo",
)  # fmt: skip


class Interval(NamedTuple):
    """`size` times `unit`: 's' for anything up to hours (then `size` is in seconds), 'd' or 'mo'."""

    size: int
    unit: str
    name: str

    @property
    def seconds(self) -> float:
        """Its length, for days and months the mean one."""
        return self.size * {"s": 1.0, "d": 86400.0, "mo": 2629746.0}[self.unit]


def parse(text: str) -> Interval:
    """`30s`, `15m`, `1h`, `1d`, `1mo`. Seconds to hours must divide the day, so that days begin buckets.

    Raises InvalidInput.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})(s|mo|m|h|d)", text)
    if not found:
        raise InvalidInput(f"interval: {text!r} is none; write it as 30s, 15m, 1h, 1d or 1mo.")
    count, unit = int(found[1]), found[2]
    if unit in _UNITS:
        seconds = count * _UNITS[unit]
        if 86400 % seconds:
            raise InvalidInput(f"interval: {text} does not divide a day.")
        return Interval(seconds, "s", text)
    if unit == "mo" and 12 % count and count % 12:
        raise InvalidInput(f"interval: {text} does not divide a year.")
    return Interval(count, unit, text)


def fitting(span: timedelta, pixels: int, *, at_least: float = 0.0) -> Interval:
    """The finest interval that needs at most `pixels` buckets for `span`; not under `at_least` seconds."""
    for name in LADDER:
        interval = parse(name)
        if interval.seconds >= at_least and span.total_seconds() / interval.seconds <= pixels:
            return interval
    return parse(LADDER[-1])


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which a local date begins, in UTC; where clocks skip midnight, when they do."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _first_of(day: date, interval: Interval) -> date:
    if interval.unit == "d":
        # Counted from a Monday, so that 7d is a week.
        return day - timedelta(days=(day - date(2001, 1, 1)).days % interval.size)
    months = (day.year * 12 + day.month - 1) // interval.size * interval.size
    return date(months // 12, months % 12 + 1, 1)


def _next(day: date, interval: Interval) -> date:
    if interval.unit == "d":
        return day + timedelta(days=interval.size)
    months = day.year * 12 + day.month - 1 + interval.size
    return date(months // 12, months % 12 + 1, 1)


def days(lo: datetime, hi: datetime, interval: Interval, zone: ZoneInfo) -> list[date]:
    """First local dates of the buckets that touch [lo, hi), and of the one after; 'd' and 'mo' only."""
    day = _first_of(lo.astimezone(zone).date(), interval)
    found = [day]
    while midnight(found[-1], zone) < hi:
        found.append(_next(found[-1], interval))
    return found


class Grid(NamedTuple):
    """Buckets over a span: `edges` (instants, the last one closing), or every `step` from `lo` to `hi`."""

    lo: datetime
    hi: datetime
    step: timedelta | None
    edges: list[datetime] | None

    def __len__(self) -> int:
        if self.edges is not None:
            return len(self.edges) - 1
        assert self.step
        return -((self.lo - self.hi) // self.step)


def grid(lo: datetime, hi: datetime, interval: Interval, zone: ZoneInfo) -> Grid:
    """The whole buckets of `interval` that touch [lo, hi), in `zone`.

    Up to hours they are of equal length, counted from the midnight before `lo`; days and months are as long
    as the calendar and the clock changes make them.
    """
    if interval.unit == "s":
        step = timedelta(seconds=interval.size)
        start = midnight(lo.astimezone(zone).date(), zone)
        first = start + (lo - start) // step * step
        last = start - (start - hi) // step * step
        return Grid(first, max(last, first + step), step, None)
    edges = [midnight(day, zone) for day in days(lo, hi, interval, zone)]
    return Grid(edges[0], edges[-1], None, edges)


def level(interval: Interval, found: Grid, *, account_zone: bool) -> str:
    """The coarsest rollup whose buckets no edge of the grid splits."""
    if interval.unit != "s":
        if account_zone:
            return "day"
        edges = found.edges or []
        return "hour" if all(edge.minute == edge.second == 0 for edge in edges) else "minute"
    aligned = found.lo.minute == found.lo.second == 0
    if interval.size % 3600 == 0 and aligned:
        return "hour"
    return "minute" if interval.size % 60 == 0 and found.lo.second == 0 else "sample"
