"""Every vector of the contract: published by a real client, read back through the contract's views."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import paho.mqtt.client as paho

from caudal.mqtt.endpoint import Endpoint


def publish_all(port: int, messages: list[tuple[str, bytes]]) -> None:
    """Publish at QoS 1 and return once the last PUBACK is there."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="vectors")
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        for topic, payload in messages:
            client.publish(topic, payload, qos=1).wait_for_publish(20)
    finally:
        client.disconnect()
        client.loop_stop()


def payload_of(vector: dict[str, Any]) -> bytes:
    if "payload_b64" in vector:
        return base64.b64decode(vector["payload_b64"])
    return str(vector["payload"]).encode()


async def rows_of(pool: asyncpg.Pool[Any], tenant: str, devices: set[str]) -> list[dict[str, Any]]:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("select set_config('app.tenant_id', $1, true)", tenant)
        rows = await connection.fetch(
            "select tenant_id, device_id, point_id, ts, v_num, v_bool, v_text, unit, qual from ts_measure"
            " where device_id = any($1)",
            sorted(devices),
        )
    return [dict(row) for row in rows]


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["device_id"], row["point_id"], row["ts"])


async def test_all_vectors(endpoint: Endpoint, pool: asyncpg.Pool[Any], shared_dir: Path) -> None:
    import asyncio

    lines = (shared_dir / "vectors" / "telemetry.jsonl").read_text().splitlines()
    vectors = [json.loads(line) for line in lines]
    messages = [(vector["topic"], payload_of(vector)) for vector in vectors]
    # Twice: what was stored once is a known duplicate the second time.
    for _ in range(2):
        await asyncio.to_thread(publish_all, endpoint.port, messages)
    for vector in vectors:
        expected = vector["expect"]["rows"]
        for row in expected:
            row["ts"] = datetime.fromisoformat(row["ts"])
        levels = vector["topic"].split("/")
        tenant = expected[0]["tenant_id"] if expected else levels[1]
        devices = {row["device_id"] for row in expected} or {levels[-2]}
        stored = await rows_of(pool, tenant, devices)
        assert sorted(stored, key=key) == sorted(expected, key=key), vector["name"]
        reasons = await pool.fetch(
            "select reason from ingest_errors where topic = $1 order by id", vector["topic"]
        )
        assert [row["reason"].split(":")[0] for row in reasons] == [
            dead["reason"] for dead in vector["expect"]["dead"]
        ] * 2, vector["name"]
    ledger = await pool.fetchrow(
        "select sum(messages) as messages, sum(received) as received, sum(stored) as stored,"
        " sum(duplicates) as duplicates, sum(dead) as dead, sum(held) as held, sum(empty) as empty"
        " from caudal.ledger"
    )
    assert ledger["messages"] == 2 * len(vectors)
    parts = ("stored", "duplicates", "dead", "held", "empty")
    assert ledger["received"] == sum(ledger[part] for part in parts)
    assert (
        ledger["stored"] == ledger["duplicates"] == await pool.fetchval("select count(*) from caudal.sample")
    )
