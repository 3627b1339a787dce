"""The door for everything that is not MQTT: each message's own outcome, in order, after the commit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from caudal.core.errors import Unavailable
from caudal.mqtt.ports import Principal
from caudal.telemetry.submit import Message, Outcome, submit

from .conftest import MakePipeline

ANYONE = Principal("test")


def v1(device: str, second: int, *points: tuple[str, Any]) -> Message:
    """A v1 message of `device`, measured at that second of a fixed minute."""
    body = {
        "schema": "v1",
        "ts": f"2025-10-07T15:30:{second:02}Z",
        "points": [{"name": name, "t": "num", "v": value} for name, value in points],
    }
    return f"traksense/acme/plant/{device}/telem", json.dumps(body).encode(), ANYONE


def parts(outcome: Outcome) -> tuple[int, int, int, int]:
    tally = outcome.tally
    return tally.stored, tally.duplicates, tally.dead, tally.held


async def test_each_message_hears_its_own_outcome(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    good, half = v1("a", 1, ("t", 1.5), ("u", 2)), v1("b", 1, ("t", 1), ("bad", "warm"))
    rubbish: Message = ("traksense/acme/plant/a/telem", b"\xff\xfe", ANYONE)
    nowhere: Message = ("elsewhere", b"{}", ANYONE)
    outcomes = await submit(pipeline, [good, half, rubbish, nowhere, good])
    assert [parts(outcome) for outcome in outcomes] == [
        (2, 0, 0, 0), (1, 0, 1, 0), (0, 0, 1, 0), (0, 0, 1, 0), (0, 2, 0, 0),
    ]  # fmt: skip
    assert [outcome.accepted for outcome in outcomes] == [True, False, False, False, True]
    assert [dead.reason for outcome in outcomes for dead in outcome.dead] == ["value", "encoding", "topic"]
    assert outcomes[1].dead[0].pointer == "/points/1/v"
    # Told after the commit: everything is there.
    assert await pool.fetchval("select count(*) from caudal.sample") == 3
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 3


async def test_earlier_receipt_is_kept(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1))], received=[1_759_851_000_000_000])
    assert await pool.fetchval("select extract(epoch from received) from caudal.sample") == 1_759_851_000


async def test_more_than_fits_waits_for_room(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline(ingest_queue_max=100, ingest_batch_size=30)
    messages = [v1(f"d{number % 20}", number // 20 % 60, ("t", number)) for number in range(1200)]
    outcomes = await submit(pipeline, messages)
    assert all(parts(outcome) == (1, 0, 0, 0) for outcome in outcomes)
    assert await pool.fetchval("select count(*) from caudal.sample") == 1200
    assert pipeline.queue.messages == pipeline.queue.bytes == 0


async def test_a_full_pipeline_times_out_and_stores_once(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    message = v1("a", 1, ("t", 1))
    await submit(pipeline, [message])
    again = v1("a", 2, ("t", 1))
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("lock table caudal.sample in access exclusive mode")
        with pytest.raises(Unavailable):
            await submit(pipeline, [again], timeout=0.2)
    # Which of the two copies comes first is open; that one of them counts is not.
    assert parts((await submit(pipeline, [again]))[0]) in ((0, 1, 0, 0), (1, 0, 0, 0))
    await pipeline.drained()
    assert await pool.fetchval("select count(*) from caudal.sample") == 2
    sums = await pool.fetchrow("select sum(stored), sum(duplicates) from caudal.ledger")
    assert sums == (2, 1)


async def test_a_caller_that_gives_up_costs_nothing(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    task = asyncio.create_task(submit(pipeline, [v1("a", 1, ("t", 1))]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pipeline.drained()
    assert await pool.fetchval("select count(*) from caudal.sample") == 1
