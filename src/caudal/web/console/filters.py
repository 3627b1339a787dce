"""Span, site and device, as they stand in a page's address."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from caudal.core.errors import InvalidInput

SPANS = ("24h", "7d", "30d", "month", "12mo", "custom")
LONGEST = timedelta(days=3660)


class Filters(msgspec.Struct, frozen=True):
    """What a page is narrowed to: instants (`end` exclusive), and `unit`, the length of a bucket."""

    span: str
    start: datetime
    end: datetime
    unit: str
    site_id: int | None
    device_id: int | None
    first: date
    last: date


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which a local day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def number(given: Mapping[str, Any], name: str) -> int | None:
    """An id from the address; InvalidInput for what is none."""
    text = given.get(name)
    if not text:
        return None
    if not str(text).isdecimal() or len(str(text)) > 18:
        raise InvalidInput(f"{name}: not a number.")
    return int(text)


def _day(text: str | None, name: str) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: write the day as 2026-01-31.") from error
    if not 1971 <= found.year <= 2200:
        raise InvalidInput(f"{name}: a day between 1971 and 2200.")
    return found


def read(given: Mapping[str, Any], zone: ZoneInfo, *, default: str = "7d") -> Filters:
    """The filters in an address. Raises InvalidInput."""
    span = str(given.get("span") or default)
    if span not in SPANS:
        raise InvalidInput(f"span: one of {', '.join(SPANS)}.")
    now = datetime.now(UTC)
    today = now.astimezone(zone).date()
    last = today
    match span:
        case "24h":
            start = (now - timedelta(hours=23)).astimezone(zone).replace(minute=0, second=0, microsecond=0)
            first = start.date()
            site, device = number(given, "site"), number(given, "device")
            end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            return Filters(span, start.astimezone(UTC), end, "hour", site, device, first, last)
        case "7d" | "30d":
            first = today - timedelta(days=int(span[:-1]) - 1)
        case "month":
            first = today.replace(day=1)
        case "12mo":
            year, month = divmod(today.year * 12 + today.month - 12, 12)
            first = date(year, month + 1, 1)
        case _:
            first = _day(given.get("from"), "from") or today - timedelta(days=6)
            last = _day(given.get("to"), "to") or today
    if last < first:
        raise InvalidInput("from, to: the span is empty; `to` must not be before `from`.")
    if last - first > LONGEST:
        raise InvalidInput("from, to: at most ten years.")
    days = (last - first).days + 1
    unit = "hour" if days <= 2 else "day" if days <= 93 else "month"
    if unit == "month":
        first = first.replace(day=1)
        year, month = divmod(last.year * 12 + last.month, 12)
        end = midnight(date(year, month + 1, 1), zone)
    else:
        end = midnight(last + timedelta(days=1), zone)
    return Filters(
        span, midnight(first, zone), end, unit, number(given, "site"), number(given, "device"), first, last
    )


def buckets(filters: Filters, zone: ZoneInfo) -> list[datetime]:
    """The first instant of each hour, day or month of the span, and the end."""
    edges: list[datetime] = []
    if filters.unit == "hour":
        at = filters.start
        while at < filters.end:
            edges.append(at)
            at += timedelta(hours=1)
    else:
        day = filters.first
        while (at := midnight(day, zone)) < filters.end:
            edges.append(at)
            if filters.unit == "day":
                day += timedelta(days=1)
            else:
                year, month = divmod(day.year * 12 + day.month, 12)
                day = date(year, month + 1, 1)
    return [*edges, filters.end]
