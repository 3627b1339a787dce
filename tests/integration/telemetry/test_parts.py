"""Every part of a message is accounted for, by count and not as what is left over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from caudal.mqtt.ports import Inbound, Principal
from caudal.telemetry.submit import submit

from .conftest import MakePipeline
from .test_submit import ANYONE, v1


async def test_a_new_unit_of_a_known_point_costs_nothing(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    body = {"schema": "v1", "ts": "2025-10-07T15:30:02Z", "points": [{"name": "t", "v": 2, "u": "furlong"}]}
    outcome = (await submit(pipeline, [("traksense/acme/plant/a/telem", json.dumps(body).encode(), ANYONE)]))[
        0
    ]
    assert (outcome.tally.stored, outcome.tally.empty) == (1, 0)
    assert await pool.fetchval("select unit from ts_measure where v_num = 2") == "furlong"


async def test_a_refused_device_with_many_samples_of_one_point(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'refuse')")
    pipeline = await make_pipeline()
    pack = [{"bn": "probe", "bt": 1_759_851_000, "n": "A", "u": "Cel", "v": 1}]
    pack += [{"n": "A", "u": "Cel", "t": second, "v": second} for second in range(1, 5)]
    topic = "tenants/acme/sites/plant/assets/gw/telemetry"
    outcome = (await submit(pipeline, [(topic, json.dumps(pack).encode(), Principal("x"))]))[0]
    tally = outcome.tally
    assert (tally.received, tally.dead, tally.empty) == (5, 5, 0), outcome.dead
    assert [tuple(row) for row in await pool.fetch("select reason, items from caudal.dead_letter")] == [
        ("unknown_device", 5)
    ]


async def test_a_quarantined_device_behind_another_is_held_though_its_points_are_known(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    topic = "tenants/acme/sites/plant/assets/gw/telemetry"

    def pack(second: int) -> bytes:
        return json.dumps(
            [{"bn": "probe", "bt": 1_759_851_000 + second, "n": "A", "u": "Cel", "v": 1}]
        ).encode()

    await submit(pipeline, [(topic, pack(0), ANYONE)])
    await pool.execute("update caudal.device set status = 'quarantined' where name = 'probe'")
    pipeline.forget("device:1:probe")
    tally = (await submit(pipeline, [(topic, pack(1), ANYONE)]))[0].tally
    assert (tally.stored, tally.held) == (0, 1)
    row = await pool.fetchrow("select device_name, items from caudal.held_message")
    assert row is not None
    assert tuple(row) == ("probe", 1)


async def test_a_copy_that_overtakes_its_original_leaves_one_letter(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    """A device loses its connection, and sends again what the database has not committed yet."""
    first, second = await make_pipeline(ingest_writers=1), await make_pipeline(ingest_writers=1)
    topic = "traksense/acme/plant/a/telem"
    async with pool.acquire() as connection, connection.transaction():
        # The original's transaction is held up at its last step.
        await connection.execute("lock table caudal.ledger in access exclusive mode")
        original = asyncio.create_task(submit(first, [(topic, b"{", ANYONE)]))
        while not await waits(pool, "%insert into caudal.ledger%"):
            await asyncio.sleep(0.01)
        origin = Silent()
        # And the copy comes twice in one batch.
        copies = [Inbound(topic, b"{", 1, False, True, number, origin, 1) for number in (1, 2)]
        second.submit(copies)
        while not await waits(pool, "%advisory%"):
            await asyncio.sleep(0.01)
    await original
    await second.drained()
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 1
    assert await pool.fetchval("select sum(duplicates) from caudal.ledger") == 2


async def waits(pool: asyncpg.Pool[Any], query: str) -> bool:
    """Whether a statement like that waits for a lock."""
    found = await pool.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and query like $1",
        query,
    )
    return bool(found)


class Silent:
    """An origin that wants no answer."""

    principal = ANYONE
    client_id = "silent"

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...
