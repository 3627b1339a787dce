"""The newest value of a series is the sample that came, however long ago: its kind and quality with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from caudal.core import db

from .conftest import World

OLD = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)


async def latest(app_pool: Any, series: list[int]) -> dict[int, Any]:
    async with db.tenant_transaction(app_pool, "acme", readonly=True) as connection:
        rows = await connection.fetch("select * from caudal.series_latest($1)", series)
    return {row["series"]: row for row in rows}


async def test_an_old_value_is_what_it_was(world: World, app_pool: Any) -> None:
    tenant = await world.tenant("acme")
    truth = await world.series(tenant, "door", "state")
    word = await world.series(tenant, "mode", "state")
    number = await world.series(tenant, "level")
    await world.store(
        [
            (truth, OLD - timedelta(minutes=5), None, False, None, 0),
            (truth, OLD + timedelta(seconds=1.5), None, True, None, 1),
            (word, OLD, None, None, "true", 1),
            (number, OLD, 4.5, None, None, 1),
        ]
    )
    await world.refresher.settle()
    await world.put_threshold(OLD + timedelta(hours=2))
    found = await latest(app_pool, [truth, word, number])
    assert (found[truth]["v_bool"], found[truth]["v_text"], found[truth]["qual"]) == (True, None, 1)
    assert found[truth]["ts"] == OLD + timedelta(seconds=1.5)
    assert (found[word]["v_bool"], found[word]["v_text"], found[word]["qual"]) == (None, "true", 1)
    assert (found[number]["v_num"], found[number]["qual"]) == (4.5, 1)
    # Where the samples are gone and the rollups are kept, the rollups' word has to do.
    await world.pool.execute("delete from caudal.sample")
    found = await latest(app_pool, [truth, word, number])
    assert (found[truth]["v_text"], found[word]["v_text"], found[number]["v_num"]) == ("true", "true", 4.5)


async def test_a_bad_value_is_the_newest_all_the_same(world: World, app_pool: Any) -> None:
    """However old, made by the rollups or still marked; and a dial that was replaced is no sample."""
    tenant = await world.tenant("acme")
    mixed, alone, meter = [
        await world.series(tenant, name, "counter") for name in ("mixed", "alone", "meter")
    ]
    hour = timedelta(hours=1)
    await world.store(
        [
            (mixed, OLD, 4.5, None, None, 0),
            (mixed, OLD + timedelta(minutes=1), 99.0, None, None, 2),
            (alone, OLD - 3 * hour, 1.5, None, None, 0),
            (alone, OLD, None, None, "broken", 2),
            (meter, OLD - hour, 7.0, None, None, 1),
        ]
    )
    await world.pool.execute(
        "insert into caudal.replacement(tenant_id, series_id, at, start_reading, created_by)"
        " values ($1, $2, $3, 3, 'test')", tenant, meter, OLD + timedelta(minutes=5),
    )  # fmt: skip
    await world.refresher.settle()
    for _ in range(2):
        await world.put_threshold(OLD + 2 * hour)
        found = await latest(app_pool, [mixed, alone, meter])
        assert (found[mixed]["v_num"], found[mixed]["qual"]) == (99.0, 2)
        assert found[mixed]["ts"] == OLD + timedelta(minutes=1)
        assert (found[alone]["v_num"], found[alone]["v_text"], found[alone]["qual"]) == (None, "broken", 2)
        assert (found[meter]["ts"], found[meter]["v_num"], found[meter]["qual"]) == (OLD - hour, 7.0, 1)
        # The second time from the samples of hours that wait to be made.
        await world.pool.execute(
            "select caudal.invalidate(array_agg(series), array_agg(hour)) from (select distinct series,"
            " floor(extract(epoch from ts) / 3600)::int as hour from caudal.sample) as touched"
        )
