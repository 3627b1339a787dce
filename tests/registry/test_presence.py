"""One definition of online, and availability measured from its records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest

from caudal.core.db import tenant_transaction
from caudal.registry import devices, gateways, presence, profiles
from caudal.registry.devices import DeviceIn
from caudal.registry.gateways import GatewayIn
from caudal.registry.profiles import ProfileIn

Pool: TypeAlias = "asyncpg.Pool[Any]"


@pytest.fixture
async def device(app_pool: Pool) -> int:
    async with tenant_transaction(app_pool, "acme") as c:
        profile = (await profiles.create(c, ProfileIn("p", heartbeat_seconds=60))).id
        return (await devices.create(c, DeviceIn("d", profile_id=profile))).id


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def states(pool: Pool, device: int) -> list[tuple[float, bool]]:
    rows = await pool.fetch("select at, online from caudal.presence where device_id = $1 order by at", device)
    now = datetime.now(UTC)
    return [(round((now - row["at"]).total_seconds(), -1), row["online"]) for row in rows]


async def test_heard_and_silent(pool: Pool, ingest_pool: Pool, app_pool: Pool, device: int) -> None:
    async with ingest_pool.acquire() as c:
        assert (
            await presence.heard(c, "device", {device: ago(500), 999_999: ago(1)}) == 2
        )  # came, and is long gone
        assert await presence.heard(c, "device", {device: ago(30)}) == 1
        assert await presence.heard(c, "device", {device: ago(20)}) == 0
        assert await presence.heard(c, "device", {device: ago(400)}) == 0  # older than what is known
    assert await states(pool, device) == [(500, True), (440, False), (30, True)]
    async with tenant_transaction(app_pool, "acme") as c:
        assert (await devices.get(c, device)).presence == "online"
    await pool.execute("update caudal.device set last_heard = now() - interval '90 s' where id = $1", device)
    async with ingest_pool.acquire() as c:
        assert await presence.overdue(c) == 1
        assert await presence.overdue(c) == 0
    # Dated when the heartbeat ran out, 30 s ago.
    assert (await states(pool, device))[-1] == (30, False)
    async with tenant_transaction(app_pool, "acme") as c:
        assert (await devices.get(c, device)).presence == "offline"


async def test_a_gap_nobody_noticed_is_recorded(pool: Pool, ingest_pool: Pool, device: int) -> None:
    async with ingest_pool.acquire() as c:
        await pool.execute(
            "update caudal.device set is_online = true, last_heard = now() - interval '300 s' where id = $1",
            device,
        )
        assert await presence.heard(c, "device", {device: ago(10)}) == 2
    assert await states(pool, device) == [(240, False), (10, True)]


async def test_availability(pool: Pool, app_pool: Pool, device: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    await pool.execute("update caudal.device set created_at = $2 where id = $1", device, start)
    await pool.executemany(
        "insert into caudal.presence(tenant_id, device_id, at, online)"
        " select tenant_id, id, $2, $3 from caudal.device where id = $1",
        [
            (device, start + timedelta(hours=h), on)
            for h, on in ((1, True), (3, False), (4, True), (10, False))
        ],
    )

    async def ask(first: float, last: float) -> tuple[float, float | None]:
        async with tenant_transaction(app_pool, "acme") as c:
            found = await presence.availability(
                c, "device", device, start + timedelta(hours=first), start + timedelta(hours=last)
            )
        assert found is not None
        return found.online_seconds / 3600, found.ratio

    assert await ask(0, 10) == (8, 0.8)
    assert await ask(2, 3.5) == (1, pytest.approx(2 / 3))
    assert await ask(5, 6) == (1, 1)
    assert await ask(-5, 4) == (2, 0.5)  # counted from when it was made
    assert await ask(11, 12) == (0, 0)
    assert await ask(6, 6) == (0, None)
    async with tenant_transaction(app_pool, "rival") as c:
        assert await presence.availability(c, "device", device, start, ago(0)) is None


async def test_open_piece_is_good_for_a_heartbeat(
    pool: Pool, ingest_pool: Pool, app_pool: Pool, device: int
) -> None:
    await pool.execute("update caudal.device set created_at = now() - interval '200 s' where id = $1", device)
    async with ingest_pool.acquire() as c:
        await presence.heard(c, "device", {device: ago(50)})
    # It fell silent, and no sweep has come by yet.
    await pool.execute("update caudal.device set last_heard = now() - interval '150 s' where id = $1", device)
    await pool.execute(
        "update caudal.presence set at = now() - interval '150 s' where device_id = $1", device
    )
    async with tenant_transaction(app_pool, "acme") as c:
        found = await presence.availability(c, "device", device, ago(1000), ago(-1000))
    assert found is not None
    assert found.online_seconds == pytest.approx(60, abs=2)
    assert found.observed_seconds == pytest.approx(200, abs=2)


async def test_collector_flushes_devices_and_gateways(ingest_pool: Pool, app_pool: Pool, device: int) -> None:
    async with tenant_transaction(app_pool, "acme") as c:
        gateway = (await gateways.create(c, GatewayIn("g", "aa:bb:cc:dd:ee:01"))).id
    collector = presence.Presence(ingest_pool)
    now = int(ago(1).timestamp() * 1e6)
    collector.hear({device: now - 1_000_000})
    collector.hear({device: now}, {gateway: now})
    await collector.flush()
    async with tenant_transaction(app_pool, "acme") as c:
        assert (await gateways.get(c, gateway)).status == "online"
        assert (await devices.get(c, device)).presence == "online"
        assert [d.id for d in (await devices.find(c, online=True)).items] == [device]


async def test_collector_keeps_what_it_could_not_write(
    device: int, database_url: str, app_pool: Pool
) -> None:
    from caudal.core import db

    pool = await db.open_pool(database_url, minimum=0, maximum=1, role="caudal_ingest")
    collector = presence.Presence(pool)
    collector.hear({device: int(ago(1).timestamp() * 1e6)})
    await pool.close()
    with pytest.raises(asyncpg.InterfaceError):
        await collector.flush()
    collector._pool = await db.open_pool(database_url, minimum=0, maximum=1, role="caudal_ingest")
    await collector.flush()
    await collector._pool.close()
    async with tenant_transaction(app_pool, "acme") as c:
        assert (await devices.get(c, device)).presence == "online"


async def test_who_talks_all_the_time_is_written_now_and_then(
    ingest_pool: Pool, pool: Pool, device: int
) -> None:
    collector = presence.Presence(ingest_pool)
    now = int(ago(10).timestamp() * 1e6)
    seen = "select last_heard from caudal.device where id = $1"
    collector.hear({device: now})
    await collector.flush()
    first = await pool.fetchval(seen, device)
    collector.hear({device: now + 1_000_000})
    await collector.flush()
    assert await pool.fetchval(seen, device) == first
    # Kept, not forgotten: the last it said is written in its turn, at the latest when ingest stops.
    await collector.close()
    assert (await pool.fetchval(seen, device) - first).total_seconds() == 1


async def test_a_short_heartbeat_is_written_each_time(ingest_pool: Pool, pool: Pool, device: int) -> None:
    await pool.execute(
        "with p as (insert into caudal.profile(tenant_id, name, heartbeat_seconds)"
        " select tenant_id, 'hasty', 5 from caudal.device where id = $1 returning id)"
        " update caudal.device set profile_id = p.id from p where caudal.device.id = $1",
        device,
    )
    collector = presence.Presence(ingest_pool)
    for second in (3, 2, 1):
        at = ago(second)
        collector.hear({device: int(at.timestamp() * 1e6)})
        await collector.flush()
        found = await pool.fetchval("select last_heard from caudal.device where id = $1", device)
        assert abs((found - at).total_seconds()) < 0.001
