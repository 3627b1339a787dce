"""A tenant beyond its quota is made to wait, and loses nothing; another notices nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import asyncpg

from caudal.mqtt import packets as pk
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.loadclient import LoadFleet
from caudal.registry.administration import Quota, set_quota


def messages(tenant: str, count: int) -> list[tuple[str, bytes]]:
    return [
        (
            f"traksense/{tenant}/plant/device/telem",
            b'{"schema":"v1","ts":"2026-01-01T00:%02d:%02dZ","points":[{"name":"t","v":%d}]}'
            % (number // 60, number % 60, number),
        )
        for number in range(count)
    ]


async def publish(endpoint: Endpoint, tenant: str, count: int) -> float:
    """Publish in steps of the window; returns the seconds until the last is acknowledged."""
    fleet = LoadFleet("127.0.0.1", endpoint.port, [pk.Connect(client_id=tenant, keep_alive=60)], window=5)
    await fleet.open()
    began = time.monotonic()
    totals = await fleet.run([messages(tenant, count)])
    await fleet.close()
    assert totals.acked == count
    return time.monotonic() - began


async def test_a_quota_slows_its_tenant_and_nobody_else(endpoint: Endpoint, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("insert into caudal.tenant(name) values ('slow'), ('free')")
    await pool.execute(
        "insert into caudal.quota(tenant_id, messages_per_second)"
        " select id, 4 from caudal.tenant where name = 'slow'"
    )
    # A second's worth at once, a window's worth each time before it is noticed; the rest at the quota's pace,
    # whatever else this machine has to do.
    assert await publish(endpoint, "slow", 17) > (17 - 4 - 2 * 5) / 4
    pauses = endpoint.counters.pauses
    assert pauses > 0
    await publish(endpoint, "free", 120)
    assert endpoint.counters.pauses == pauses
    assert await pool.fetchval("select count(*) from caudal.sample") == 137


async def test_points_count_by_themselves(endpoint: Endpoint, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("insert into caudal.tenant(name) values ('slow')")
    await pool.execute(
        "insert into caudal.quota(tenant_id, points_per_second)"
        " select id, 40 from caudal.tenant where name = 'slow'"
    )
    assert await publish(endpoint, "slow", 120) > 1.5
    assert await pool.fetchval("select count(*) from caudal.sample") == 120


async def test_beyond_the_storage_everything_is_a_dead_letter_until_there_is_room(
    endpoint: Endpoint, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("insert into caudal.tenant(name) values ('full'), ('free')")
    await publish(endpoint, "full", 30)
    async with pool.acquire() as connection:
        shown = await set_quota(connection, "full", Quota(storage_bytes=3000))
    assert (shown.used_bytes, shown.full) == (3000, True)
    # Until the change has reached ingest.
    async with asyncio.timeout(10):
        while (
            letter := await pool.fetchrow("select reason, sentence from caudal.dead_letter limit 1")
        ) is None:
            await publish_new(endpoint, "full")
    assert letter["reason"] == "too_large"
    assert "storage of its quota" in letter["sentence"]
    stored = await pool.fetchval("select count(*) from caudal.sample")
    await publish_new(endpoint, "full")
    await publish(endpoint, "free", 10)
    assert await pool.fetchval("select count(*) from caudal.sample") == stored + 10
    # Somebody raises the quota: what comes is stored; what came can be replayed.
    async with pool.acquire() as connection:
        assert (await set_quota(connection, "full", Quota(storage_bytes=1 << 30))).full is False
    async with asyncio.timeout(10):
        while await pool.fetchval("select count(*) from caudal.sample") == stored + 10:
            await publish_new(endpoint, "full")
    rest = "select sum(received - stored - duplicates - dead - held - empty) from caudal.ledger"
    assert await pool.fetchval(rest) == 0


_fresh = itertools.count(1)


async def publish_new(endpoint: Endpoint, tenant: str) -> None:
    """One sample at an instant that was not there before."""
    payload = b'{"schema":"v1","ts":"2026-02-01T00:%02d:%02dZ","points":[{"name":"t","v":1}]}' % divmod(
        next(_fresh), 60
    )
    fleet = LoadFleet("127.0.0.1", endpoint.port, [pk.Connect(client_id=tenant, keep_alive=60)], window=5)
    await fleet.open()
    await fleet.run([[(f"traksense/{tenant}/plant/device/telem", payload)]])
    await fleet.close()
