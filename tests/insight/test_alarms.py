"""Open alarms: what is beyond its limit now, by an account's own readings and days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

from caudal.web.console import alarms

from .conftest import World, reads

ZONE = ZoneInfo("America/Sao_Paulo")
TODAY = date(2025, 3, 12)
NOON = datetime(2025, 3, 12, 15, tzinfo=UTC)


async def _read(app_pool: asyncpg.Pool[Any], points: list[int], *meters: alarms.Meter) -> list[Any]:
    async with reads(app_pool, "a")() as connection:
        return await alarms.read(connection, points, meters, ZONE, TODAY)


async def _limit(world: World, point: int, low: float | None, high: float | None) -> None:
    await world.pool.execute(
        "update caudal.series set limit_low = $2, limit_high = $3 where id = $1", point, low, high
    )


async def test_the_newest_number_decides(world: World, app_pool: asyncpg.Pool[Any]) -> None:
    tenant = await world.tenant("a", ZONE.key)
    cold, warm, fine, bad, word = [
        await world.series(tenant, name) for name in ("cold", "warm", "fine", "bad", "word")
    ]
    for point in (cold, warm, fine, bad, word):
        await _limit(world, point, -5, 5)
    await world.store([
        (cold, NOON, -6.0, None, None, 0),
        (warm, NOON + timedelta(hours=1), 7.5, None, None, 1),
        # It was beyond, and is back: at the limit is not beyond it.
        (fine, NOON, 99.0, None, None, 0), (fine, NOON + timedelta(hours=1), 5.0, None, None, 0),
        # Its device says that this is no reading.
        (bad, NOON, 99.0, None, None, 2),
        (word, NOON, None, None, "99", 0),
    ])  # fmt: skip
    found = await _read(app_pool, [cold, warm, fine, bad, word])
    assert [(one.kind, one.point, one.value, one.bound, one.at) for one in found] == [
        ("high", warm, 7.5, 5.0, NOON + timedelta(hours=1)),
        ("low", cold, -6.0, -5.0, NOON),
    ]
    await _limit(world, warm, None, None)
    assert [one.point for one in await _read(app_pool, [cold, warm, fine])] == [cold]


async def test_consumption_counts_in_the_accounts_own_day_and_month(
    world: World, app_pool: asyncpg.Pool[Any]
) -> None:
    tenant = await world.tenant("a", ZONE.key)
    dial = await world.series(tenant, "valor", "counter", "meter")
    device = await world.pool.fetchval("select device_id from caudal.series where id = $1", dial)
    meter = alarms.Meter(device, dial, "kWh")
    midnight = datetime(2025, 3, 12, 3, tzinfo=UTC)  # in São Paulo
    await world.numbers(dial, [
        (datetime(2025, 3, 1, 2, 59, tzinfo=UTC), 0.0),  # still February there
        (datetime(2025, 3, 1, 3, 30, tzinfo=UTC), 10.0),
        (midnight - timedelta(minutes=1), 40.0),
        (midnight + timedelta(minutes=1), 44.0),
        (NOON, 50.0),
    ])  # fmt: skip
    assert await _read(app_pool, [dial], meter) == []
    limits = "update caudal.device set alarm_day = $2, alarm_month = $3 where id = $1"
    await world.pool.execute(limits, device, 10, 50)
    assert await _read(app_pool, [dial], meter) == []
    await world.pool.execute(limits, device, 9, 49)
    assert [(one.kind, one.device, one.value, one.bound) for one in await _read(app_pool, [dial], meter)] == [
        ("day", device, 10.0, 9.0), ("month", device, 50.0, 49.0),
    ]  # fmt: skip


async def test_another_accounts_points_raise_nothing(world: World, app_pool: asyncpg.Pool[Any]) -> None:
    await world.tenant("a")
    theirs = await world.series(await world.tenant("b"))
    await _limit(world, theirs, 0, 1)
    await world.numbers(theirs, [(NOON, 2.0)])
    assert await _read(app_pool, [theirs]) == []
