"""A tenant beyond its quota is made to wait, and loses nothing; another notices nothing."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from caudal.mqtt import packets as pk
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.loadclient import LoadFleet


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
