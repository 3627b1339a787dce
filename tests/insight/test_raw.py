"""Raw messages: copied of whom somebody watches, the newest few, and for nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from caudal.core import db
from caudal.insight import raw
from caudal.insight.raw import Tap
from caudal.mqtt.ports import Inbound, Principal
from caudal.registry.tenants import create_tenant
from caudal.telemetry import rows
from caudal.telemetry.batch import Batch, Entry

SEED = """
with d as (insert into caudal.device(tenant_id, name) values ($1, $2) returning id, tenant_id)
insert into caudal.series(tenant_id, device_id, name, kind) select tenant_id, id, 'p', 'gauge' from d
returning device_id, id
"""


class World:
    """Two tenants with a device each (number, series), and a tap."""

    def __init__(self, pool: Any, app: Any, tap: Tap, devices: dict[str, tuple[int, int]]) -> None:
        self.pool, self.app, self.tap, self.devices = pool, app, tap, devices

    async def ask(self, tenant: str, device: int) -> None:
        async with db.tenant_transaction(self.app, tenant) as connection:
            await raw.ask(connection, device)
        await self.tap.read()

    async def newest(self, tenant: str, device: int) -> list[raw.RawMessage]:
        async with db.tenant_transaction(self.app, tenant, readonly=True) as connection:
            return await raw.newest(connection, device)

    async def commit(self, tenant: str, *payloads: bytes, named: bool = False) -> None:
        _, series = self.devices[tenant]
        batch = Batch()
        row = rows.head(series, 0, None) + rows.times(0, 0) + bytes(8) + rows.tail(None)
        for number, payload in enumerate(payloads):
            message = Inbound(
                "a/b", payload, 1, False, False, 1, Principal("x"), 1_000_000_000_000_000 + number
            )
            tenant_id = await self.pool.fetchval("select id from caudal.tenant where name = $1", tenant)
            batch.entries.append(
                Entry(message, tenant_id, 1, device_name="gauge") if named
                else Entry(message, tenant_id, 1, rows=row, count=1)
            )  # fmt: skip
        self.tap.committed(batch)
        # As if it had come a moment ago.
        await self.tap.write()
        await self.pool.execute("update caudal.raw_message set received = now() + (id * interval '1 us')")


@pytest.fixture
async def world(pool: Any, database_url: str) -> AsyncIterator[World]:
    ingest = await db.open_pool(database_url, minimum=1, maximum=2, role="caudal_ingest")
    app = await db.open_pool(database_url, minimum=1, maximum=2, role="caudal_app")
    devices = {}
    for name in ("ours", "theirs"):
        number = await create_tenant(pool, name)
        devices[name] = tuple(await pool.fetchrow(SEED, number, "gauge"))
    yield World(pool, app, Tap(ingest), devices)  # type: ignore[arg-type]
    await ingest.close()
    await app.close()


async def test_only_what_is_watched_is_copied(world: World) -> None:
    ours, theirs = world.devices["ours"][0], world.devices["theirs"][0]
    await world.commit("ours", b"before")
    await world.ask("ours", ours)
    await world.commit("ours", b"\xff\x00{")
    await world.commit("theirs", b"secret")
    await world.commit("ours", b"an event has no rows", named=True)
    assert [one.payload for one in await world.newest("ours", ours)] == [
        b"an event has no rows",
        b"\xff\x00{",
    ]
    # Neither asking for another's device nor reading it leads anywhere.
    await world.ask("ours", theirs)
    await world.commit("theirs", b"secret")
    assert await world.newest("ours", theirs) == []
    assert await world.newest("theirs", theirs) == []
    assert await world.newest("theirs", ours) == []


async def test_it_ends_and_keeps_the_newest_few(world: World) -> None:
    ours = world.devices["ours"][0]
    await world.ask("ours", ours)
    await world.commit("ours", *(b"%d" % number for number in range(30)), b"x" * 20_000)
    found = await world.newest("ours", ours)
    assert len(found) == raw.KEPT
    assert (len(found[0].payload), found[0].size) == (raw.PAYLOAD_MAX, 20_000)
    assert found[-1].payload == b"11"
    await world.pool.execute("update caudal.raw_watch set until = now()")
    await world.tap.read()
    await world.commit("ours", b"after")
    assert (await world.newest("ours", ours))[0].size == 20_000
    await world.pool.execute("update caudal.raw_message set received = now() - interval '25 hours'")
    assert await world.newest("ours", ours) == []
    await world.ask("ours", ours)
    assert await world.pool.fetchval("select count(*) from caudal.raw_message") == 0


async def test_asking_again_does_not_tell_ingest_again(world: World, database_url: str) -> None:
    """A page that is opened by many wakes ingest once a minute at most."""
    ours = world.devices["ours"][0]
    told: list[str] = []
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    try:
        await connection.add_listener("caudal_watch", lambda *_: told.append("."))
        for _ in range(3):
            await world.ask("ours", ours)
        await connection.fetchval("select 1")
    finally:
        await connection.close()
    assert len(told) == 1
