"""The background jobs: with its own role, and as a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from caudal.app import upkeep
from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.settings import load
from caudal.insight import consumption
from caudal.telemetry.maintenance import AHEAD_DAYS, Maintenance, RetentionSettings

from .conftest import World, reads

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
async def upkeep_pool(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    opened = await db.open_pool(database_url, minimum=1, maximum=2, role=upkeep.ROLE)
    yield opened
    await opened.close()


def maintenance(pool: asyncpg.Pool[Any], **settings: Any) -> Maintenance:
    return Maintenance(pool, RetentionSettings(**settings), Metrics())


async def days_ahead(pool: asyncpg.Pool[Any]) -> int:
    return await pool.fetchval(
        "select count(*) from generate_series(0, 30) d"
        " where to_regclass('caudal.sample_' || to_char((now() + d * interval '1 day') at time zone 'UTC',"
        " 'YYYYMMDD')) is not null"
    )


async def test_partitions_are_made_ahead(
    pool: asyncpg.Pool[Any], upkeep_pool: asyncpg.Pool[Any], hypertable: bool
) -> None:
    if hypertable:  # makes its chunks itself; what is ahead is one wide chunk, made anew further off in time
        await maintenance(upkeep_pool).partitions()
        assert await pool.fetchval("select max(first) - now() from caudal.chunks() where wide") > 60 * DAY
        return
    for row in await pool.fetch("select caudal.drop_partitions('-30 days'::interval)"):
        assert row[0]
    assert await days_ahead(pool) == 0
    await maintenance(upkeep_pool).partitions()
    assert await days_ahead(pool) == AHEAD_DAYS + 1


async def test_old_samples_go_and_their_hours_stay(
    world: World, upkeep_pool: asyncpg.Pool[Any], hypertable: bool
) -> None:
    series = await world.series(await world.tenant("a"))
    old, new = datetime.now(UTC) - timedelta(days=100), datetime.now(UTC) - 3 * HOUR
    for at in (old, new):
        await world.pool.execute("select caudal.ensure_partition($1)", at)
        await world.numbers(series, [(at, 1.0)])
    job = maintenance(upkeep_pool, retention_days=30)
    assert await job.retention() == []  # not before the hours are made
    await world.refresher.settle()
    dropped = await job.retention()
    assert len(dropped) == 1
    assert hypertable or dropped == [f"sample_{old:%Y%m}"]
    count = "select count(*) from caudal.sample where series = $1"
    hours = "select bucket, n from caudal.hours_of(array[$1::int], '2000-01-01', now()) order by 1"
    assert await world.pool.fetchval(count, series) == 1
    assert [row["n"] for row in await world.pool.fetch(hours, series)] == [1, 1]
    # What comes for a time whose samples are gone does not replace what the hour knows.
    await world.numbers(series, [(old + timedelta(seconds=1), 5.0)])
    assert [row["n"] for row in await world.pool.fetch(hours, series)] == [1, 1]
    await world.refresher.settle()
    assert [row["n"] for row in await world.pool.fetch(hours, series)] == [1, 1]


async def test_a_tenant_may_keep_its_samples_for_less(world: World, upkeep_pool: asyncpg.Pool[Any]) -> None:
    tenants = [await world.tenant(name) for name in ("a", "b")]
    await world.pool.execute("update caudal.tenant set retention_days = 10 where id = $1", tenants[0])
    ids = [await world.series(tenant) for tenant in tenants]
    for series in ids:
        await world.numbers(series, [(datetime.now(UTC) - timedelta(days=days), 1.0) for days in (5, 20)])
    await world.refresher.settle()
    await maintenance(upkeep_pool).retention()
    rows = await world.pool.fetch("select series, count(*) from caudal.sample group by 1 order by 1")
    assert [tuple(row) for row in rows] == [(ids[0], 1), (ids[1], 2)]
    assert await world.pool.fetchval("select count(*) from caudal.rollup_hour") == 4


async def test_dead_letters_are_kept_fourteen_days(
    pool: asyncpg.Pool[Any], upkeep_pool: asyncpg.Pool[Any]
) -> None:
    for days in (1, 13, 15, 400):
        await pool.execute(
            "insert into caudal.dead_letter(topic, payload, reason, sentence, received, digest)"
            " values ('t', '', 'json', 's', now() - make_interval(days => $1), '')", days,
        )  # fmt: skip
    assert await maintenance(upkeep_pool).dead_letters() == 2
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 2


async def test_upkeep_may_do_nothing_else(upkeep_pool: asyncpg.Pool[Any]) -> None:
    for table in ("sample", "tenant", "dead_letter", "rollup_hour"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await upkeep_pool.execute(f"select * from caudal.{table}")


async def test_late_data_reaches_hour_day_and_month_within_five_seconds(
    world: World, database_url: str, app_pool: asyncpg.Pool[Any]
) -> None:
    tenant = await world.tenant("a", "America/Sao_Paulo")
    series = await world.series(tenant, "valor", "delta")
    life = Lifecycle()
    settings = upkeep.UpkeepSettings()
    await upkeep.parts(life, database_url, settings, RetentionSettings(), Metrics())
    try:
        late = datetime.now(UTC) - timedelta(days=400)
        await world.numbers(series, [(late, 7.0)])
        # In what people see it is at once: in each unit, and in the view that reports are made from.
        for unit in ("hour", "day", "month"):
            report = await consumption.read(reads(app_pool, "a"), [str(series)], unit, late, late + HOUR)
            assert report.series[0].total == 7.0, unit
        async with db.tenant_transaction(app_pool, "a") as connection:
            assert await connection.fetchval("select sum(total_consumo) from tds_new_consumo_mensal") == 7
        kept = (
            "select (select count(*) from caudal.rollup_hour where series = $1)"
            " + (select count(*) from caudal.rollup_day where series = $1)"
        )
        async with asyncio.timeout(30):
            while await world.pool.fetchval(kept, series) != 2:
                await asyncio.sleep(0.05)
            report = await consumption.read(reads(app_pool, "a"), [str(series)], "month", late, late + HOUR)
            assert report.series[0].total == 7.0
    finally:
        await life.stop()


async def test_settings_come_from_the_environment() -> None:
    settings = load(RetentionSettings, {"RETENTION_DAYS": "90"})
    assert (settings.retention_days, settings.dead_letter_days) == (90, 14)
    assert load(upkeep.UpkeepSettings, {"ROLLUP_GRACE_SECONDS": "60"}).rollup_grace_seconds == 60
