from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caudal.insight import intervals, queries, states

from . import oracle
from .conftest import World, reads
from .test_correct import PLACES, _names

HOUR = timedelta(hours=1)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    zone, around = draw(st.sampled_from(PLACES))
    width = draw(st.sampled_from([3600, 6 * 3600, 60 * 3600]))
    seconds = draw(st.lists(st.integers(-width, width), min_size=1, max_size=50, unique=True))
    return {
        "zone": zone,
        "samples": [
            (around + timedelta(seconds=s), draw(st.sampled_from(["RUN", "STOP", "FAULT", ""])))
            for s in seconds
        ],
        "threshold": around + timedelta(seconds=draw(st.integers(-width, width))),
        "settled": draw(st.booleans()),
        "interval": draw(st.sampled_from(["30m", "1h", "1d"])),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=machines())
async def test_time_in_states_is_that_of_an_independent_calculation(
    world: World, app_pool: asyncpg.Pool, made: dict[str, Any]
) -> None:
    name = f"t{next(_names)}"
    series = await world.series(await world.tenant(name, made["zone"]), kind="state", device=name)
    await world.put_threshold(made["threshold"].replace(minute=0, second=0))
    await world.store((series, at, None, None, state, 0) for at, state in made["samples"])
    if made["settled"]:
        await world.refresher.settle()
    times = [at for at, _ in made["samples"]]
    span = (min(times) + HOUR / 3, max(times) + 2 * HOUR)
    answer = await states.read(reads(app_pool, name), [str(series)], *span, made["interval"])
    grid = intervals.grid(*span, intervals.parse(made["interval"]), ZoneInfo(made["zone"]))
    edges = grid.edges or [grid.lo + i * grid.step for i in range(len(grid) + 1) if grid.step]
    true = oracle.states(made["samples"], edges)
    column = answer.series[0]
    assert column.t == [queries.millis(edge) for edge in edges[:-1]]
    for place, bucket in enumerate(true):
        found = {state: seconds[place] for state, seconds in column.states.items() if seconds[place]}
        assert found == pytest.approx(bucket, abs=1e-3)
        whole = (edges[place + 1] - edges[place]).total_seconds()
        assert column.unknown[place] == pytest.approx(whole - sum(bucket.values()), abs=1e-3)


async def test_days_keep_the_same_as_their_hours(world: World, app_pool: asyncpg.Pool) -> None:
    series = await world.series(await world.tenant("a", "Europe/Lisbon"), kind="state")
    start = datetime(2024, 5, 1, 6, tzinfo=UTC)
    rows: list[Any] = [
        (series, start + i * timedelta(minutes=7), None, i % 3 > 0, None, 0) for i in range(60)
    ]
    await world.store(rows)
    await world.refresher.settle()
    kept = await world.pool.fetchval("select states from caudal.rollup_day where series = $1", series)
    true = oracle.states([(row[1], str(row[3]).lower()) for row in rows], [start, rows[-1][1]])[0]
    assert kept == pytest.approx(true)


async def test_a_text_that_never_repeats_does_not_grow_without_bound(world: World) -> None:
    series = await world.series(await world.tenant("a"), kind="state")
    start = datetime(2024, 5, 1, 6, tzinfo=UTC)
    await world.store(
        (series, start + i * timedelta(seconds=10), None, None, f"line {i}", 0) for i in range(300)
    )
    await world.refresher.settle()
    kept = await world.pool.fetchval("select states from caudal.rollup_hour where series = $1", series)
    assert len(kept) == 33
    assert sum(kept.values()) == pytest.approx(2990)
