"""Nobody hears of a message when it is written, but when its transaction has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from caudal.mqtt.endpoint import Endpoint
from caudal.telemetry.submit import submit
from tests.commits import commits_held

from .conftest import MakePipeline
from .test_submit import v1

# CONNECT of MQTT 3.1.1 with the client id "k"; its CONNACK; PINGREQ; PINGRESP.
CONNECT, CONNACK = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01k", b"\x20\x02\x00\x00"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


@pytest.mark.parametrize(("qos", "answer"), [(1, b"\x40\x02\x00\x09"), (2, b"\x50\x02\x00\x09")])
async def test_acks_wait_for_the_commit(
    endpoint: Endpoint, pool: asyncpg.Pool[Any], qos: int, answer: bytes
) -> None:
    topic, payload, _ = v1("a", 1, ("a point with a name", 1))
    body = len(topic).to_bytes(2, "big") + topic.encode() + b"\x00\x09" + payload
    assert 128 <= len(body) < 16_384
    publish = bytes((0x30 | qos << 1, len(body) & 127 | 128, len(body) >> 7)) + body
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(CONNECT)
    assert await reader.readexactly(4) == CONNACK
    async with asyncio.timeout(30):
        async with commits_held(pool, "caudal.ledger") as reached:
            writer.write(publish)
            await reached()
            # What comes first on this connection is the answer to what was asked last.
            writer.write(PINGREQ)
            assert await reader.readexactly(2) == PINGRESP
            assert await pool.fetchval("select count(*) from caudal.sample") == 0
        assert await reader.readexactly(4) == answer
    assert await pool.fetchval("select count(*) from caudal.sample") == 1
    writer.close()


async def test_outcomes_wait_for_the_commit(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    """What HTTP answers with."""
    pipeline = await make_pipeline()
    good, strange = v1("a", 1, ("t", 1)), ("elsewhere", b"{}", v1("a", 1)[2])
    async with commits_held(pool, "caudal.ledger") as reached:
        asked = asyncio.create_task(submit(pipeline, [good, strange]), name="asked")
        await reached()
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
    outcomes = await asked
    assert [outcome.accepted for outcome in outcomes] == [True, False]
    assert await pool.fetchval("select count(*) from caudal.sample") == 1
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 1
