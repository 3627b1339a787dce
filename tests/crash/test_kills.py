"""Whatever dies, and whenever: what was acknowledged is stored, a known duplicate, or a dead letter."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import StartError

from .conftest import Ingest, Mosquitto, rounds
from .load import Load, prove

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def seed_of(chance: random.Random) -> int:
    return int(chance.number)  # type: ignore[attr-defined]


async def at_random(load: Load, chance: random.Random, most: int = 1200) -> None:
    """Return at a random moment under load: after so many more acknowledgements."""
    await load.totals.reach(load.totals.acked + chance.randint(1, most))


async def test_endpoint_killed(postgres: EmbeddedPostgres, make_ingest: Any, chance: random.Random) -> None:
    ingest = await make_ingest(postgres.url)
    load = Load(ingest.port, seed_of(chance))
    await load.start()
    for _ in rounds(7):
        await at_random(load, chance)
        await ingest.kill()
        await ingest.start()
    await at_random(load, chance)
    await load.finish()
    assert load.totals.unacked == 0
    assert load.totals.resent > 0, "no kill met a message under way: the test shows nothing"
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}"))


async def test_database_killed(postgres: EmbeddedPostgres, make_ingest: Any, chance: random.Random) -> None:
    ingest = await make_ingest(postgres.url)
    load = Load(ingest.port, seed_of(chance))
    await load.start()
    for _ in rounds(5):
        await at_random(load, chance)
        await asyncio.to_thread(postgres.kill)
        await postgres.start()
    await at_random(load, chance)
    await load.finish()
    assert load.totals.unacked == 0
    # Devices noticed nothing but slower answers.
    assert load.totals.reconnects == 0
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}"))


async def test_both_killed_at_once(
    postgres: EmbeddedPostgres, make_ingest: Any, chance: random.Random
) -> None:
    ingest = await make_ingest(postgres.url)
    load = Load(ingest.port, seed_of(chance))
    await load.start()
    for _ in rounds(1):
        await at_random(load, chance)
        first, second = ingest.kill, lambda: asyncio.to_thread(postgres.kill)
        if chance.random() < 0.5:
            first, second = second, first
        await first()
        await second()
        await asyncio.gather(postgres.start(), supervised(ingest))
    await at_random(load, chance)
    await load.finish()
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}"))


async def test_subscriber_and_broker(
    postgres: EmbeddedPostgres, make_ingest: Any, mosquitto: Mosquitto, chance: random.Random
) -> None:
    """Between a broker that promises what it has in memory and us, nothing more is lost."""
    ingest = await make_ingest(postgres.url, MQTT_URL=f"mqtt://127.0.0.1:{mosquitto.port}")
    load = Load(mosquitto.port, seed_of(chance))
    await load.start()
    for _ in rounds(6):
        await at_random(load, chance)
        what = chance.choice(["subscriber", "subscriber", "broker", "database"])
        if what == "subscriber":
            await ingest.kill()
            await ingest.start()
        elif what == "broker":
            await mosquitto.stop()
            await mosquitto.start()
        else:
            await asyncio.to_thread(postgres.kill)
            await postgres.start()
    await at_random(load, chance)
    await load.finish()
    assert load.totals.unacked == 0
    await arrived(postgres, load)
    # Whatever is still under way is committed before it stops.
    await ingest.stop()
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}", broker=True))


async def supervised(ingest: Ingest) -> None:
    """Start it until it stays up, as whoever supervises it does: it ends when there is no database."""
    async with asyncio.timeout(60):
        while True:
            try:
                await ingest.start()
            except StartError:
                continue
            return


async def arrived(postgres: EmbeddedPostgres, load: Load) -> None:
    """Return once the last message of each publisher is stored: the broker hands them on in order."""
    connection: Any = await asyncpg.connect(postgres.url)
    try:
        async with asyncio.timeout(60):
            for messages in load.sent:
                device, point, at, _ = [message for message in messages if message.rows][-1].rows[0]
                while not await connection.fetchval(
                    "select true from ts_measure where device_id = $1 and point_id = $2 and ts = $3",
                    device,
                    point,
                    at,
                ):
                    # No event of the database says that a row has come.
                    await asyncio.sleep(0.1)
    finally:
        await connection.close()
