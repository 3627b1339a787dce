"""Notifications through a lost connection: nothing that was notified in between goes unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from caudal.core.notifications import listen_for_ever

Connect = Callable[[], Awaitable[Any]]


class Heard:
    """What a listener heard, in order; a gap is None."""

    def __init__(self) -> None:
        self.all: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

    def on(self, channel: str) -> Callable[[str], None]:
        return lambda payload: self.all.put_nowait((channel, payload))

    def gap(self) -> None:
        self.all.put_nowait(None)

    async def next(self) -> tuple[str, str] | None:
        return await asyncio.wait_for(self.all.get(), 10)


@asynccontextmanager
async def listening(connect: Connect, *channels: str) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(
        listen_for_ever(connect, {name: heard.on(name) for name in channels}, on_gap=heard.gap)
    )
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_every_channel_reaches_its_own(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    async with listening(lambda: asyncpg.connect(database_url), "one", "two") as heard:
        assert await heard.next() is None  # begun: whatever was notified before is unknown
        await pool.execute("select pg_notify('two', 'b'), pg_notify('one', 'a'), pg_notify('other', 'c')")
        assert {await heard.next(), await heard.next()} == {("one", "a"), ("two", "b")}
        assert heard.all.empty()


async def test_a_lost_connection_is_a_gap_and_then_goes_on(
    database_url: str, pool: asyncpg.Pool[Any]
) -> None:
    pids: list[int] = []

    async def connect() -> Any:
        connection = await asyncpg.connect(database_url)
        pids.append(connection.get_server_pid())
        return connection

    async with listening(connect, "one") as heard:
        assert await heard.next() is None
        await pool.execute("select pg_terminate_backend($1)", pids[0])
        assert await heard.next() is None
        await pool.execute("select pg_notify('one', 'again')")
        assert await heard.next() == ("one", "again")
    assert len(set(pids)) == 2


async def test_listening_has_begun_when_the_gap_is_told(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    """Whoever reads anew in `on_gap` misses nothing that is notified after it."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    sent: list[asyncio.Task[Any]] = []

    def gap() -> None:
        sent.append(asyncio.create_task(pool.execute("select pg_notify('one', 'at once')")))

    task = asyncio.create_task(
        listen_for_ever(lambda: asyncpg.connect(database_url), {"one": heard.put_nowait}, on_gap=gap)
    )
    assert await asyncio.wait_for(heard.get(), 10) == "at once"
    task.cancel()
    await asyncio.wait([task, *sent])


async def test_a_database_that_is_away_is_waited_for(database_url: str) -> None:
    tries = 0

    async def connect() -> Any:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise (OSError("refused"), TimeoutError(), asyncpg.CannotConnectNowError("starting"))[tries - 1]
        return await asyncpg.connect(database_url)

    async with listening(connect, "one") as heard:
        assert await heard.next() is None
    assert tries == 4


async def test_cancelling_closes_the_connection(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    connections: list[Any] = []

    async def connect() -> Any:
        connections.append(await asyncpg.connect(database_url))
        return connections[-1]

    async with listening(connect, "one") as heard:
        await heard.next()
    assert [connection.is_closed() for connection in connections] == [True]
