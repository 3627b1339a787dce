"""The view that reports are made from: as the contract says, in the account's zone, each tenant's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from caudal.core import db

from . import oracle
from .conftest import World

HOUR = timedelta(hours=1)


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    opened = await db.open_pool(database_url, minimum=1, maximum=2, role="caudal_reader")
    yield opened
    await opened.close()


async def rows(pool: asyncpg.Pool[Any], tenant: str, where: str = "") -> list[tuple[Any, ...]]:
    async with db.tenant_transaction(pool, tenant, readonly=True) as connection:
        found = await connection.fetch(
            f"select * from tds_new_consumo_mensal {where} order by mes_referencia, dispositivo_id"
        )
    return [tuple(row) for row in found]


async def test_its_columns_are_those_of_the_contract(pool: asyncpg.Pool[Any]) -> None:
    found = await pool.fetch(
        "select column_name, data_type from information_schema.columns"
        " where table_name = 'tds_new_consumo_mensal' order by ordinal_position"
    )
    assert [tuple(row) for row in found] == [
        ("mes_referencia", "timestamp with time zone"), ("conta_id", "bigint"), ("dispositivo_id", "bigint"),
        ("total_consumo", "numeric"), ("media_diaria", "numeric"), ("leituras_count", "bigint"),
    ]  # fmt: skip


@pytest.mark.parametrize("settled", [False, True])
async def test_months_are_the_account_s_own(world: World, reader: asyncpg.Pool[Any], settled: bool) -> None:
    tenant = await world.tenant("a", "America/Sao_Paulo")
    other = await world.tenant("b", "Europe/Lisbon")
    meter = await world.series(tenant, "valor", "counter", "m1")
    gauge = await world.series(tenant, "valor", "gauge", "m2")
    delta = await world.series(other, "kwh", "delta", "m3")
    await world.series(other, "temp", "gauge", "m4")
    # The dial grows by one each hour, over the end of February in São Paulo (03:00 UTC).
    edge = datetime(2024, 3, 1, 3, tzinfo=UTC)
    await world.numbers(meter, [(edge + i * HOUR, 1000.0 + i) for i in range(-48, 25)])
    await world.numbers(gauge, [(edge, 5.0), (edge + HOUR, 6.0)])
    await world.numbers(delta, [(datetime(2024, 3, 31, 23, tzinfo=UTC), 2.5)])  # April in Lisbon's summer
    if settled:
        await world.refresher.settle()
    march, february = edge, datetime(2024, 2, 1, 3, tzinfo=UTC)
    devices = {row["name"]: row["id"] for row in await world.pool.fetch("select name, id from caudal.device")}
    assert await rows(reader, "a") == [
        (february, tenant, devices["m1"], Decimal(47), Decimal("23.5"), 48),
        (march, tenant, devices["m1"], Decimal(25), Decimal("12.5"), 25),
        (march, tenant, devices["m2"], None, None, 2),
    ]
    assert await rows(reader, "a", f"where mes_referencia = '{february.isoformat()}'") == [
        (february, tenant, devices["m1"], Decimal(47), Decimal("23.5"), 48)
    ]
    assert await rows(reader, "b") == [
        (datetime(2024, 3, 31, 23, tzinfo=UTC), other, devices["m3"], Decimal("2.5"), Decimal("2.5"), 1)
    ]
    assert await rows(reader, "nobody") == []
    async with reader.acquire() as connection:
        assert await connection.fetch("select * from tds_new_consumo_mensal") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from caudal.rollup_day")


async def test_one_month_alone_is_computed_when_one_is_asked_for(world: World) -> None:
    # The filter must reach below the barrier, or each report computes the whole history.
    tenant = await world.tenant("a")
    meter = await world.series(tenant, "valor", "counter")
    await world.numbers(meter, [(datetime(2024, 1, 1, tzinfo=UTC), 1.0)])
    async with db.tenant_transaction(world.pool, "a") as connection:
        plan = await connection.fetchval(
            "explain (analyze, costs off, timing off, summary off, format json)"
            " select * from tds_new_consumo_mensal where mes_referencia = '2024-03-01Z'"
        )
    calls: list[int] = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("Function Name") == "tenant_month":
            calls.append(node["Actual Loops"])
        for child in node.get("Plans", ()):
            walk(child)

    walk((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    assert calls == [1]


async def test_another_zone_cuts_the_days_anew(world: World) -> None:
    tenant = await world.tenant("a", "UTC")
    meter = await world.series(tenant, "valor", "counter")
    start = datetime(2024, 1, 1, tzinfo=UTC)
    await world.numbers(meter, [(start + i * HOUR, float(i)) for i in range(48)])
    days = (
        "select bucket, n from caudal.days_of(array[$1::int], 'Asia/Kathmandu', '2023-12-31', '2024-01-04')"
        " order by 1"
    )
    await world.refresher.settle()
    assert await world.pool.fetchval("select count(*) from caudal.rollup_day") == 2
    await world.pool.execute("update caudal.tenant set time_zone = 'Asia/Kathmandu' where id = $1", tenant)
    assert [row["n"] for row in await world.pool.fetch(days, meter)] == [19, 24, 5]
    await world.refresher.settle()
    assert await world.pool.fetchval("select count(*) from caudal.rollup_day") == 3
    assert [row["n"] for row in await world.pool.fetch(days, meter)] == [19, 24, 5]


@pytest.mark.parametrize(
    ("zone", "edge"),
    [
        ("America/Havana", datetime(2020, 11, 1, 4, tzinfo=UTC)),  # midnight comes twice
        ("America/Asuncion", datetime(2017, 10, 1, 4, tzinfo=UTC)),  # and never
        ("Atlantic/Azores", datetime(2024, 4, 1, tzinfo=UTC)),
        ("Asia/Beirut", datetime(2013, 3, 31, 21, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2024, 3, 31, 18, 15, tzinfo=UTC)),
        ("Pacific/Apia", datetime(2011, 12, 31, 10, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("settled", [False, True])
async def test_a_month_begins_with_its_first_instant(
    world: World, reader: asyncpg.Pool[Any], zone: str, edge: datetime, settled: bool
) -> None:
    meter = await world.series(await world.tenant("a", zone), "valor", "counter")
    readings = [(edge + i * HOUR / 2, 2.0 * i + i % 5) for i in range(-150, 150)]
    await world.numbers(meter, readings)
    if settled:
        await world.refresher.settle()
    place = ZoneInfo(zone)
    true = oracle.consumption(readings, "counter", "month", place, readings[0][0])
    found = await rows(reader, "a")
    assert {row[0]: float(row[3]) for row in found} == pytest.approx(true)
    assert {row[0] for row in found} >= {edge}
    counts = Counter(oracle.bucket(at, "month", place, edge) for at, _ in readings)
    assert {row[0]: row[5] for row in found} == counts


async def test_a_replaced_dial_is_counted_on_both_sides(world: World, reader: asyncpg.Pool[Any]) -> None:
    tenant = await world.tenant("a")
    meter = await world.series(tenant, "valor", "counter")
    start = datetime(2024, 3, 1, tzinfo=UTC)
    # 990 to 1000 on the old dial, whose last word is 1004; the new one begins at 5000 and is seen at 5003.
    await world.numbers(meter, [(start, 990.0), (start + HOUR, 1000.0), (start + 5 * HOUR, 5003.0)])
    await world.refresher.settle()
    assert [row[3] for row in await rows(reader, "a")] == [Decimal(4013)]
    number = await world.pool.fetchval(
        "insert into caudal.replacement(tenant_id, series_id, at, final_reading, start_reading)"
        " values ($1, $2, $3, 1004, 5000) returning id", tenant, meter, start + 3 * HOUR,
    )  # fmt: skip
    assert [row[3:] for row in await rows(reader, "a")] == [(Decimal(17), Decimal(17), 3)]
    await world.refresher.settle()
    assert [row[3] for row in await rows(reader, "a")] == [Decimal(17)]
    await world.pool.execute("delete from caudal.replacement where id = $1", number)
    assert [row[3] for row in await rows(reader, "a")] == [Decimal(4013)]
