"""Two years of a real transformer, hour by hour, against DuckDB over the file itself."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import duckdb
import pytest

from caudal.insight import consumption, queries
from caudal.insight.queries import SeriesQuery

from .conftest import World, reads

COLUMNS = ("HUFL", "OT")
YEAR = (datetime(2016, 7, 1, tzinfo=UTC), datetime(2018, 7, 1, tzinfo=UTC))


@pytest.fixture
async def transformer(world: World, shared_dir: Path) -> dict[str, int]:
    """The file's columns as gauges of a meter in UTC, and OT summed up as the dial of a counter."""
    tenant = await world.tenant("ett")
    with (shared_dir / "data" / "ETTh1.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["date"]).replace(tzinfo=UTC) for row in rows]
    found = {}
    for name in COLUMNS:
        found[name] = await world.series(tenant, name)
        await world.numbers(found[name], zip(times, (float(row[name]) for row in rows), strict=True))
    found["dial"] = await world.series(tenant, "dial", "counter")
    dial, readings = 0.0, []
    for at, row in zip(times, rows, strict=True):
        # Restarts when it overflows, as a small counter does.
        dial = 0.0 if dial > 50_000 else dial + abs(float(row["HUFL"]))
        readings.append((at, dial))
    await world.numbers(found["dial"], readings)
    return found


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("interval", ["1h", "1d", "1mo"])
async def test_two_years_as_duckdb_has_them(
    world: World,
    app_pool: asyncpg.Pool,
    transformer: dict[str, int],
    shared_dir: Path,
    settled: bool,
    interval: str,
) -> None:
    if settled:
        await world.refresher.settle()
    query = SeriesQuery(
        tuple(f"d/{name}" for name in COLUMNS), *YEAR, interval,
        aggregations=("count", "min", "max", "avg", "first", "last"),
    )  # fmt: skip
    answer = await queries.read(reads(app_pool, "ett"), query)
    part = {"1h": "hour", "1d": "day", "1mo": "month"}[interval]
    for column in answer.series:
        name = column.series.point
        true = duckdb.sql(
            f"select epoch_ms(date_trunc('{part}', date)) as at, count(*),"
            f" min({name}), max({name}), avg({name}),"
            f" arg_min({name}, date), arg_max({name}, date)"
            f" from read_csv('{shared_dir}/data/ETTh1.csv') group by 1 order by 1"
        ).fetchall()
        assert column.t == [row[0] for row in true]
        assert column.gaps == []
        for place, aggregation in enumerate(query.aggregations, 1):
            assert column.values[aggregation] == pytest.approx([row[place] for row in true], rel=1e-9)


async def test_a_dial_over_two_years_with_restarts(
    world: World, app_pool: asyncpg.Pool, transformer: dict[str, int], shared_dir: Path
) -> None:
    await world.refresher.settle()
    readings = await world.pool.fetch(
        "select ts, v_num from caudal.sample where series = $1 order by ts", transformer["dial"]
    )
    assert any(after["v_num"] < before["v_num"] for before, after in pairwise(readings))
    duck = duckdb.connect()
    duck.execute("create table r(ts timestamp, v double)")
    duck.executemany(
        "insert into r values (?, ?)", [(r["ts"].replace(tzinfo=None), r["v_num"]) for r in readings]
    )
    for unit in ("day", "month"):
        report = await consumption.read(reads(app_pool, "ett"), ["d/dial"], unit, *YEAR)
        true = duck.sql(
            f"select date_trunc('{unit}', ts) as at, sum(case when v >= p then v - p else v end) from"
            " (select ts, v, coalesce(lag(v) over (order by ts), v) as p from r) group by 1 order by 1"
        ).fetchall()
        assert [b.start.replace(tzinfo=None) for b in report.series[0].buckets] == [
            at if isinstance(at, datetime) else datetime(at.year, at.month, at.day) for at, _ in true
        ]
        assert [b.total for b in report.series[0].buckets] == pytest.approx([v for _, v in true], rel=1e-9)


async def test_peaks_stay_visible_however_wide_the_buckets(
    world: World, app_pool: asyncpg.Pool, transformer: dict[str, int]
) -> None:
    await world.numbers(transformer["OT"], [(datetime(2017, 3, 3, 3, 33, tzinfo=UTC), 9999.0)])
    for pixels in (10, 100, 1000):
        answer = await queries.read(reads(app_pool, "ett"), SeriesQuery(("d/OT",), *YEAR, pixels=pixels))
        column = answer.series[0]
        assert len(column.t) <= pixels + 2 + len(column.gaps)
        assert max(v for v in column.values["max"] if v is not None) == 9999.0


async def test_gaps_are_gaps(world: World, app_pool: asyncpg.Pool) -> None:
    series = await world.series(await world.tenant("a"))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=5 * i) for i in range(100) if not 40 <= i < 60]
    await world.numbers(series, [(at, 1.0) for at in times])
    query = SeriesQuery(("d/v",), start, start + timedelta(hours=9), "1m")
    column = (await queries.read(reads(app_pool, "a"), query)).series[0]
    after = queries.millis(start + timedelta(minutes=5 * 60))
    silent = queries.millis(start + timedelta(minutes=5 * 39 + 1))
    assert column.gaps == [(silent, after)]
    assert column.values["avg"][column.t.index(silent)] is None
    assert column.values["avg"].count(None) == 1
