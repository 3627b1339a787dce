"""A small world of tenants, devices and series, and an oracle that knows nothing of rollups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from caudal.core import db
from caudal.core.metrics import Metrics
from caudal.insight.queries import Opener
from caudal.insight.rollups import Refresher
from caudal.telemetry import invalidation

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[int, datetime, float | None, bool | None, str | None, int]


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


class World:
    """Writes samples as a writer must: threshold, rows and marks in one transaction."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self.pool = pool
        self.refresher = Refresher(pool, Metrics())

    async def tenant(self, name: str, zone: str = "UTC") -> int:
        return await self.pool.fetchval(
            "insert into caudal.tenant(name, time_zone) values ($1, $2) returning id", name, zone
        )

    async def series(self, tenant: int, name: str = "v", kind: str = "gauge", device: str = "d") -> int:
        found = await self.pool.fetchval(
            "insert into caudal.device(tenant_id, name) values ($1, $2)"
            " on conflict (name, tenant_id) do update set name = excluded.name returning id",
            tenant, device,
        )  # fmt: skip
        return await self.pool.fetchval(
            "insert into caudal.series(tenant_id, device_id, name, kind)"
            " values ($1, $2, $3, $4) returning id",
            tenant, found, name, kind,
        )  # fmt: skip

    async def store(self, rows: Iterable[Row], marks: invalidation.Marks | None = None) -> None:
        rows = list(rows)
        async with self.pool.acquire() as connection, connection.transaction():
            edge = await invalidation.edge(connection)
            await connection.copy_records_to_table(
                "sample",
                schema_name="caudal",
                columns=["series", "ts", "v_num", "v_bool", "v_text", "qual", "received"],
                records=[(*row, row[1]) for row in rows],
            )
            late: invalidation.Hours = {}
            for row in rows:
                if micros(row[1]) < edge.threshold:
                    late.setdefault(micros(row[1]) // invalidation.HOUR_US, set()).add(row[0])
            if marks is not None:
                late = marks.missing(edge.epoch, late)
            await invalidation.invalidate(connection, late)
        if marks is not None:
            marks.committed(edge.epoch, late)

    async def numbers(self, series: int, points: Iterable[tuple[datetime, float]]) -> None:
        await self.store((series, ts, value, None, None, 0) for ts, value in points)

    async def put_threshold(self, at: datetime) -> None:
        """As if the refresher had never got beyond `at`."""
        await self.pool.execute("update caudal.rollup_state set threshold = $1", at)


def reads(pool: asyncpg.Pool[Any], tenant: str) -> Opener:
    """What a route's door gives: read-only transactions of one tenant."""
    return lambda: db.tenant_transaction(pool, tenant, readonly=True)


@pytest.fixture
async def world(pool: asyncpg.Pool[Any]) -> World:
    return World(pool)


@pytest.fixture
async def app_pool(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A pool that may only what the API may."""
    opened = await db.open_pool(database_url, minimum=1, maximum=4, role="caudal_app")
    yield opened
    await opened.close()
