"""What is poison to the log, with the tool that telemetry's dead letters have: read, corrected, put back."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec
import pytest

from caudal.core.errors import Conflict
from caudal.core.eventlog import deadletters
from caudal.core.eventlog.port import Connection, Poison, Record
from caudal.core.eventlog.worker import AfterCommit, BatchWorker
from caudal.telemetry import dead_letters
from tests.core.eventlog.conftest import Bench

pytestmark = pytest.mark.timeout(90)


async def tool(url: str, *words: str, typed: bytes = b"") -> tuple[int, bytes]:
    """`caudal dead-letters …` as somebody at a terminal: what it returns and says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", "dead-letters", *words,
        env={**os.environ, "DATABASE_URL": url}, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate(typed)
    assert process.returncode is not None
    return process.returncode, out


async def test_a_record_is_listed_corrected_and_put_back_by_the_tool(bench: Bench, database_url: str) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def handle(records: list[Record], _connection: Connection) -> AfterCommit:
        if any(record.value.endswith(b"13") for record in records):
            raise Poison("unlucky", "It is thirteen.")

        def after() -> None:
            for record in records:
                heard.put_nowait((record.key, record.value))

        return after

    async def next_letter(above: int) -> int:
        async with asyncio.timeout(20):
            while True:
                number = await bench.pool.fetchval("select max(id) from caudal.dead_letter")
                if number is not None and number > above:
                    return int(number)
                await asyncio.sleep(0.02)

    worker = asyncio.create_task(BatchWorker(bench.pool, consumer, handle, bench.metrics).run())
    try:
        await bench.publish(log, [("k1", "1"), ("k7", "13"), ("k1", "2")])
        first = await next_letter(0)
        code, said = await tool(database_url, "list", "--json")
        (listed,) = msgspec.json.decode(said)["items"]
        assert (code, listed["id"], listed["topic"]) == (0, first, f"log:{bench.topic}")
        assert (listed["reason"], listed["sentence"]) == ("unlucky", "It is thirteen.")
        code, said = await tool(database_url, "show", str(first))
        assert code == 0
        assert b"13" in said

        # As it is, it is as poisonous as before, and a letter of its own again.
        code, said = await tool(database_url, "replay", str(first), "--json")
        assert (code, msgspec.json.decode(said)[0]["result"]) == (0, "replayed")
        second = await next_letter(first)
        assert await bench.pool.fetchval("select status from caudal.dead_letter where id = $1", first) == (
            "replayed"
        )

        code, said = await tool(database_url, "fix", str(second), "--payload", "-", typed=b"fourteen")
        assert code == 0, said
        code, said = await tool(database_url, "replay", str(second), "--json")
        assert code == 0, said
        async with asyncio.timeout(20):
            found = [await heard.get() for _ in range(3)]
        assert found[2] == ("k7", b"fourteen")
        assert sorted(found[:2]) == [("k1", b"1"), ("k1", b"2")]

        # Settled is settled: nothing goes twice.
        code, said = await tool(database_url, "replay", str(second), "--json")
        assert msgspec.json.decode(said)[0]["result"] == "settled"
        assert await bench.pool.fetchval("select count(*) from caudal.dead_letter where status = 'open'") == 0
        assert sum((await consumer.lag()).values()) == 0
    finally:
        worker.cancel()
        await asyncio.wait([worker])


async def test_what_no_decoder_survives_is_buried_and_the_stream_goes_on(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    good = asyncio.Event()

    async def handle(records: list[Record], _connection: Connection) -> AfterCommit:
        for record in records:
            msgspec.json.decode(record.value)
        return good.set

    worker = asyncio.create_task(BatchWorker(bench.pool, consumer, handle, bench.metrics).run())
    await bench.publish(log, [("k", "[" * 100_000)])
    await bench.publish(log, [("k", "{}")])
    try:
        await asyncio.wait_for(good.wait(), 20)
    finally:
        worker.cancel()
        await asyncio.wait([worker])
    row = await bench.pool.fetchrow("select reason, tenant_name from caudal.dead_letter")
    assert tuple(row) == ("handler_failed", None)


async def buried(pool: Any, topic: str, key: str = "k", tenant: str | None = None) -> int:
    """The number of a letter of a record on `topic`."""
    value = msgspec.json.encode({"tenant": tenant} if tenant else {"n": 1})
    record = Record(topic, 0, 5, key, value, None)  # type: ignore[arg-type]
    await deadletters.bury(pool, record, Poison("unlucky", "It is thirteen."))
    return int(await pool.fetchval("select max(id) from caudal.dead_letter"))


async def test_what_has_no_topic_stays_open_and_says_so(pool: Any) -> None:
    number = await buried(pool, "gone")
    async with pool.acquire() as connection, connection.transaction():
        (one,) = await deadletters.replay(connection, [number, number + 1], by="ana")
    assert one.id == number
    assert one.problem is not None
    assert "no topic gone" in one.problem
    assert await pool.fetchval("select status from caudal.dead_letter where id = $1", number) == "open"


async def test_a_record_is_corrected_by_operators_alone_and_another_tenants_is_left(pool: Any) -> None:
    await pool.execute("select caudal.log_ensure('t', 2)")
    number = await buried(pool, "t", tenant="ours")
    with pytest.raises(Conflict):
        await dead_letters.fix(pool, number, payload=b"x")
    with pytest.raises(Conflict):
        await dead_letters.fix(pool, number, payload=b"x", topic="log:other", records=True)
    async with pool.acquire() as connection, connection.transaction():
        assert await deadletters.replay(connection, [number], by="eve", tenant="theirs") == []
        (one,) = await deadletters.replay(connection, [number], by="ana", tenant="ours")
    assert one.problem is None
    assert await pool.fetchval("select count(*) from caudal.log_record") == 1
