"""Aggregates and consumption against an independent calculation, in every state the rollups can be in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caudal.core.errors import InvalidInput
from caudal.insight import consumption, queries
from caudal.insight.queries import SeriesQuery

from . import oracle
from .conftest import World, reads

HOUR = timedelta(hours=1)
# Where each zone has something to trip over: clocks that skip or repeat an hour, midnight or half an hour.
PLACES = [
    ("UTC", datetime(2024, 2, 29, 12, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
    ("Europe/Lisbon", datetime(2024, 3, 31, 1, tzinfo=UTC)),
    ("Europe/Lisbon", datetime(2024, 10, 27, 1, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2023, 12, 31, 18, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2024, 4, 6, 15, tzinfo=UTC)),
    ("Atlantic/Azores", datetime(2024, 10, 27, 1, tzinfo=UTC)),
    # Midnight comes twice, on the first of a month; never, on the first of a month; and never, in spring.
    ("America/Havana", datetime(2020, 11, 1, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2024, 3, 10, 5, tzinfo=UTC)),
    ("America/Asuncion", datetime(2017, 10, 1, 4, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2013, 3, 30, 22, tzinfo=UTC)),
    ("Asia/Amman", datetime(2022, 2, 24, 22, tzinfo=UTC)),
    # A day that was left out.
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
]
_names = iter(range(10**9))


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    zone, around = draw(st.sampled_from(PLACES))
    width = draw(st.sampled_from([4, 60, 24 * 45]))  # hours on each side
    seconds = draw(st.lists(st.integers(-width * 3600, width * 3600), min_size=1, max_size=60, unique=True))
    value = st.floats(-10, 1e6, allow_nan=False).map(lambda v: round(v, 3)) | st.integers(0, 20).map(float)
    return {
        "zone": zone,
        "points": [(around + timedelta(seconds=s), draw(value)) for s in seconds],
        "kind": draw(st.sampled_from(["counter", "delta"])),
        # Where the threshold stands, in hours from the middle, and how much comes after the refresher.
        "threshold": around + draw(st.integers(-width, width)) * HOUR,
        "late": draw(st.integers(0, len(seconds))),
        "swaps": draw(
            st.lists(
                st.tuples(
                    st.integers(-width * 3600, width * 3600).map(lambda s: around + timedelta(seconds=s)),
                    st.none() | value,
                    value,
                ),
                max_size=3,
                unique_by=lambda swap: swap[0],
            )
        ),
        "settled": draw(st.sampled_from(["no", "before", "after", "partly"])),
    }


async def build(world: World, made: dict[str, Any]) -> tuple[str, int]:
    name = f"t{next(_names)}"
    series = await world.series(await world.tenant(name, made["zone"]), kind=made["kind"], device=name)
    await world.put_threshold(made["threshold"].replace(minute=0, second=0))
    points, late = made["points"], made["late"]
    await world.numbers(series, points[late:])
    if made["settled"] in ("before", "partly"):
        await world.refresher.settle()
    if made["kind"] == "counter":
        await world.pool.executemany(
            "insert into caudal.replacement(tenant_id, series_id, at, final_reading, start_reading)"
            " select tenant_id, id, $2, $3, $4 from caudal.series where id = $1",
            [(series, *swap) for swap in made["swaps"]],
        )
    await world.numbers(series, points[:late])
    if made["settled"] == "after":
        await world.refresher.settle()
    if made["settled"] == "partly":
        await world.pool.fetch("select caudal.rollup_step(1, 0)")
    return name, series


def close(found: dict[Any, float], true: dict[Any, float]) -> None:
    assert sorted(found) == sorted(true)
    scale = max((abs(v) for v in true.values()), default=1.0)
    assert found == pytest.approx(true, rel=1e-9, abs=1e-9 * max(scale, 1e6))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=worlds())
async def test_consumption_is_that_of_an_independent_calculation(
    world: World, app_pool: asyncpg.Pool, made: dict[str, Any]
) -> None:
    name, series = await build(world, made)
    zone = ZoneInfo(made["zone"])
    swaps = made["swaps"] if made["kind"] == "counter" else []
    times = [at for at, _ in made["points"]] + [at for at, _, _ in swaps]
    units: tuple[consumption.Unit, ...] = ("hour", "day", "month")
    totals = {}
    for unit in units:
        report = await consumption.read(
            reads(app_pool, name), [str(series)], unit, min(times), max(times) + HOUR
        )
        found = {b.start: b.total for b in report.series[0].buckets}
        close(found, oracle.consumption(made["points"], made["kind"], unit, zone, report.start, swaps))
        totals[unit] = sum(found.values())
        assert sum(b.readings for b in report.series[0].buckets) == len(made["points"])
    assert totals["hour"] == pytest.approx(totals["day"], abs=1e-3)
    assert totals["day"] == pytest.approx(totals["month"], abs=1e-3)
    # A span that begins in the middle takes its first step from the reading before it.
    middle = sorted(times)[len(times) // 2]
    for unit in units:
        report = await consumption.read(reads(app_pool, name), [str(series)], unit, middle, max(times) + HOUR)
        true = oracle.consumption(made["points"], made["kind"], unit, zone, report.start, swaps)
        close({b.start: b.total for b in report.series[0].buckets},
              {at: v for at, v in true.items() if at >= report.start})  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=worlds())
async def test_aggregates_are_those_of_an_independent_calculation(
    world: World, app_pool: asyncpg.Pool, made: dict[str, Any]
) -> None:
    name, series = await build(world, {**made, "kind": "delta"})
    times = [at for at, _ in made["points"]]
    for unit, interval in (("hour", "1h"), ("day", "1d"), ("month", "1mo")):
        answer = await queries.read(
            reads(app_pool, name),
            SeriesQuery((str(series),), min(times), max(times) + HOUR, interval,
                        aggregations=queries.AGGREGATIONS),
        )  # fmt: skip
        column = answer.series[0]
        true = oracle.aggregates(made["points"], unit, ZoneInfo(made["zone"]), answer.start)
        for aggregation in queries.AGGREGATIONS:
            pairs = zip(column.t, column.values[aggregation], strict=True)
            close({t: v for t, v in pairs if v is not None},
                  {queries.millis(at): row[aggregation] for at, row in true.items()})  # fmt: skip


async def test_a_dial_that_restarts_jitters_and_is_silent(world: World, app_pool: asyncpg.Pool) -> None:
    series = await world.series(await world.tenant("a"), kind="counter")
    start = datetime(2024, 5, 1, tzinfo=UTC)
    readings = [100.0, 150.0, 149.95, 150.0, 5.0, 20.0]  # a jitter, then a restart
    await world.numbers(series, [(start + i * HOUR, v) for i, v in enumerate(readings)])
    await world.numbers(series, [(start + 72 * HOUR, 30.0)])
    report = await consumption.read(reads(app_pool, "a"), ["d/v"], "day", start, start + 96 * HOUR)
    assert [(b.start.day, round(b.total, 9), b.resets) for b in report.series[0].buckets] == [
        (1, 70.0, 1),
        (4, 10.0, 0),
    ]


async def test_a_gauge_has_neither_consumption_nor_sum(world: World, app_pool: asyncpg.Pool) -> None:
    await world.series(await world.tenant("a"))
    start = datetime(2024, 5, 1, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="gauge"):
        await consumption.read(reads(app_pool, "a"), ["d/v"], "day", start, start + HOUR)
    with pytest.raises(InvalidInput, match="gauge"):
        await queries.read(
            reads(app_pool, "a"), SeriesQuery(("d/v",), start, start + HOUR, aggregations=("sum",))
        )


async def test_only_usable_numbers_are_in_numeric_aggregates(world: World, app_pool: asyncpg.Pool) -> None:
    series = await world.series(await world.tenant("a"))
    start = datetime(2024, 5, 1, tzinfo=UTC)
    rows: list[Any] = [
        (1.0, None, None, 0), (3.0, None, None, 1), (1e6, None, None, 2), (None, True, None, 0),
        (None, None, "RUN", 0), (1.7e308, None, None, 0), (-1.7e308, None, None, 0),
    ]  # fmt: skip
    for settle in (False, True):
        if settle:
            await world.refresher.settle()
        else:
            await world.store((series, start + i * timedelta(minutes=1), *row) for i, row in enumerate(rows))
        for interval in ("10s", "1m", "1h", "1d"):
            answer = await queries.read(
                reads(app_pool, "a"), SeriesQuery(("d/v",), start, start + HOUR, interval)
            )
            values = answer.series[0].values
            assert min(v for v in values["min"] if v is not None) == 1
            assert max(v for v in values["max"] if v is not None) == 3
            if interval in ("1h", "1d"):
                assert values["avg"] == [2.0]
