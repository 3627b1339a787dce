"""What the answers must be, computed from all samples one by one, in the slowest and plainest way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

Points = list[tuple[datetime, float]]


def bucket(at: datetime, unit: str, zone: ZoneInfo, start: datetime) -> datetime:
    """The first instant of the local day or month in which `at` lies, or hour, counted from `start`."""
    if unit == "hour":
        return start + (at - start) // timedelta(hours=1) * timedelta(hours=1)
    local = at.astimezone(zone)
    day = local.date() if unit == "day" else local.date().replace(day=1)
    # The earliest instant with that date, found by trying: no fold, no gap can mislead us.
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while first.astimezone(zone).date() < day:
        first += timedelta(minutes=15)
    return first


Swaps = Sequence[tuple[datetime, float | None, float]]
"""Replaced dials: when, what the old one showed (None: nobody read it), what the new one began with."""


def step(before: float, now: float) -> float:
    """What a reading adds to the one before; a drop is a restart from zero."""
    fell = before - now
    return max(now, 0.0) if fell > 0.001 * abs(before) else -fell


def dial(points: Points, swaps: Swaps = ()) -> list[tuple[datetime, float]]:
    """What each reading after the first adds, at its own instant. One of a technician is a reading too."""
    steps = []
    shown: float | None = None
    events = [(at, 1, value, value) for at, value in points] + [(at, 0, old, new) for at, old, new in swaps]
    for at, _, seen, then in sorted(events, key=lambda event: event[:2]):
        if shown is not None and seen is not None:
            steps.append((at, step(shown, seen)))
        shown = then
    return steps


def consumption(
    points: Points,
    kind: str,
    unit: str,
    zone: ZoneInfo,
    start: datetime,
    swaps: Swaps = (),
) -> dict[datetime, float]:
    """Total by bucket; a bucket exists where there is a reading, also a technician's."""
    times = [at for at, _ in points] + [at for at, _, _ in swaps]
    total: dict[datetime, float] = {bucket(at, unit, zone, start): 0.0 for at in times}
    for at, added in dial(points, swaps) if kind == "counter" else points:
        total[bucket(at, unit, zone, start)] += added
    return total


def aggregates(points: Points, unit: str, zone: ZoneInfo, start: datetime) -> dict[datetime, dict]:
    """count, min, max, sum, avg, first and last by bucket."""
    groups: dict[datetime, list[float]] = defaultdict(list)
    for at, value in sorted(points):
        groups[bucket(at, unit, zone, start)].append(value)
    return {
        at: {
            "count": len(values), "min": min(values), "max": max(values), "sum": sum(values),
            "avg": sum(values) / len(values), "first": values[0], "last": values[-1],
        }
        for at, values in groups.items()
    }  # fmt: skip


def states(samples: list[tuple[datetime, str]], edges: list[datetime]) -> list[dict[str, float]]:
    """Seconds in each state between edges: a state lasts until the next sample, an hour at most."""
    found: list[dict[str, float]] = [defaultdict(float) for _ in edges[1:]]
    ordered = sorted(samples)
    ends = [at for at, _ in ordered[1:]] + [datetime.max.replace(tzinfo=UTC)]
    for (at, state), end in zip(ordered, ends, strict=True):
        for place, (low, high) in enumerate(pairwise(edges)):
            seconds = (min(high, end, at + timedelta(hours=1)) - max(low, at)).total_seconds()
            if seconds > 0:
                found[place][state] += seconds
    return [dict(bucket) for bucket in found]
