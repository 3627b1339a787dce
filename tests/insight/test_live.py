"""From the commit to the watcher: only what is watched, to whom it belongs, soon."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import asyncpg
import pytest

from caudal.core import db
from caudal.insight.live import WATCHED, Publisher
from caudal.registry.permissions import Role
from caudal.telemetry import rows
from caudal.telemetry.batch import Batch, Entry

from .conftest import World


class Ingest:
    """Commits samples and tells its publisher, as the pipeline does."""

    def __init__(self, world: World, publisher: Publisher) -> None:
        self.world = world
        self.publisher = publisher

    async def commit(self, series: int, at: datetime, value: float) -> None:
        await self.world.numbers(series, [(at, value)])
        batch = Batch()
        row = rows.head(series, 0, None) + rows.times(0, 0) + bytes(8) + rows.tail(None)
        message: Any = None
        batch.entries.append(Entry(message, 1, 1, rows=row, count=1))
        self.publisher.committed(batch)

    async def watched(self, wanted: bool) -> None:
        while (self.publisher._pattern is not None) != wanted:
            await asyncio.sleep(0.005)


@pytest.fixture
async def ingest(world: World, database_url: str) -> AsyncIterator[Ingest]:
    pool = await db.open_pool(database_url, minimum=1, maximum=3, role="caudal_ingest")
    publisher = Publisher(pool)
    listener: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    await listener.add_listener(WATCHED, lambda *_: publisher.changed())
    tasks = [asyncio.create_task(publisher.watch()), asyncio.create_task(publisher.tell())]
    yield Ingest(world, publisher)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await listener.close()
    await pool.close()


async def events(lines: AsyncIterator[str]) -> AsyncIterator[list[dict[str, Any]]]:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


@pytest.mark.alone
async def test_a_committed_value_reaches_the_screen(world: World, ingest: Ingest, running_api: Any) -> None:
    tenant = await running_api.tenant("a")
    series = await world.series(tenant)
    start = datetime.now(UTC) - timedelta(minutes=30)
    await ingest.commit(series, start, 1.0)  # nobody watches: nothing is told
    headers = await running_api.headers("a", Role.VIEWER)
    async with running_api.client.stream("GET", "/api/series/live?series=d/v", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer.aiter_lines())
        assert [item["value"] for item in await anext(stream)] == [1.0]
        await ingest.watched(True)
        took = []
        for number in range(30):
            began = perf_counter()
            await ingest.commit(series, start + timedelta(seconds=number + 1), float(number))
            while (await anext(stream))[0]["value"] != number:
                pass
            took.append(perf_counter() - began)
    assert statistics.quantiles(took, n=20)[-1] < 0.5
    async with asyncio.timeout(30):
        await ingest.watched(False)  # the watcher is gone, and so is the cost


@pytest.mark.parametrize("how", ["suspended", "taken out"])
async def test_who_may_no_longer_look_sees_nothing_more(
    world: World, ingest: Ingest, running_api: Any, how: str
) -> None:
    tenant = await running_api.tenant("a")
    series = await world.series(tenant)
    start = datetime.now(UTC) - timedelta(minutes=30)
    await running_api.person("a", Role.OWNER)
    person, headers = await running_api.person("a", Role.VIEWER)
    async with running_api.client.stream("GET", "/api/series/live?series=d/v", headers=headers) as answer:
        stream = events(answer.aiter_lines())
        assert await anext(stream) == []
        await ingest.watched(True)
        await ingest.commit(series, start, 1.0)
        assert (await anext(stream))[0]["value"] == 1.0
        if how == "suspended":
            await running_api.admin.execute(
                "update caudal.tenant set status = 'suspended' where id = $1", tenant
            )
        else:
            await running_api.admin.execute("delete from caudal.membership where person_id = $1", person)
        await ingest.commit(series, start + timedelta(seconds=1), 2.0)
        async with asyncio.timeout(30):
            assert [event async for event in stream] == []


async def test_nobody_watches_what_is_another_s(world: World, running_api: Any) -> None:
    series = await world.series(await running_api.tenant("a"))
    await running_api.tenant("b")
    headers = await running_api.headers("b", Role.OWNER)
    answer = await running_api.client.get(f"/api/series/live?series={series}", headers=headers)
    assert answer.status_code == 404


async def test_what_nobody_watches_is_not_told(world: World, ingest: Ingest, pool: asyncpg.Pool[Any]) -> None:
    tenant = await world.tenant("a")
    seen, other = await world.series(tenant), await world.series(tenant, "w")
    heard: list[str] = []

    def hear(*notification: Any) -> None:
        heard.append(notification[3])

    async with pool.acquire() as connection:
        await connection.add_listener("caudal_live", hear)
        await pool.execute("select caudal.watch_series('x', array[$1::int], 30, true)", seen)
        await ingest.watched(True)
        now = datetime.now(UTC)
        await ingest.commit(other, now, 1.0)
        await ingest.commit(seen, now, 1.0)
        async with asyncio.timeout(30):
            while not heard:
                await asyncio.sleep(0.01)
        await connection.remove_listener("caudal_live", hear)
    assert heard == [str(seen)]
