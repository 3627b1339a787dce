"""A message found again: by its bytes, by its topic, by its device."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from caudal.core.errors import InvalidInput
from caudal.telemetry import trace
from caudal.telemetry.submit import submit
from caudal.telemetry.topics import Scheme

from .conftest import MakePipeline
from .test_cli import caudal
from .test_submit import ANYONE, v1

TOPIC = "traksense/acme/plant/a/telem"


async def test_by_payload(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    topic, payload, _ = v1("a", 1, ("t", 1.25), ("bad", "warm"), ("u", 2))
    await submit(pipeline, [(topic, payload, ANYONE)])
    found = await trace.by_payload(pool, Scheme(), topic, payload)
    assert [(row.point, row.value, row.same) for row in sorted(found.rows, key=lambda r: r.point)] == [
        ("t", 1.25, True), ("u", 2.0, True),
    ]  # fmt: skip
    assert [letter["reason"] for letter in found.letters] == ["value"]
    assert found.missing == []
    assert found.rows[0].received <= datetime.now(UTC)
    assert sum(line["messages"] for line in found.ledger) == 1
    # Another value for the same instants: what came first is there.
    other = v1("a", 1, ("t", 7), ("v", 1))
    found = await trace.by_payload(pool, Scheme(), other[0], other[1])
    assert [(row.point, row.same) for row in found.rows] == [("t", False)]
    assert len(found.missing) == 1
    nothing = await trace.by_payload(pool, Scheme(), "else/where", b"{")
    assert nothing.verdict.startswith("Nothing")


async def test_acks_and_events(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    ack = ("traksense/acme/plant/a/ack", json.dumps({"schema": "v1", "cmd_id": "c1", "ok": True}).encode())
    body = {"schema": "v1", "event_type": "door", "ts": "2025-10-07T15:30:00Z"}
    event = ("traksense/acme/plant/a/event", json.dumps(body).encode())
    await submit(pipeline, [(*ack, ANYONE), (*event, ANYONE)])
    assert [x["kind"] for x in (await trace.by_payload(pool, Scheme(), *ack)).others] == ["ack"]
    assert [x["kind"] for x in (await trace.by_payload(pool, Scheme(), *event)).others] == ["event"]


async def test_by_time(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1)), v1("b", 1, ("t", 1)), (TOPIC, b"{", ANYONE)])
    now = datetime.now(UTC)
    span = {"since": now - timedelta(hours=1), "until": now + timedelta(hours=1)}
    for named in ({"topic": TOPIC, "tenant": None, "device": None},
                  {"topic": None, "tenant": "acme", "device": "a"}):  # fmt: skip
        found = await trace.by_time(pool, Scheme(), **named, **span)
        assert [row.device for row in found.rows] == ["a"]
        assert len(found.letters) == 1
        assert found.ledger
    with pytest.raises(InvalidInput):
        await trace.by_time(pool, Scheme(), topic=None, tenant="acme", device=None, **span)
    status, out, err = await caudal(database_url, "trace", "--topic", TOPIC, "--json")
    assert status == 0, err
    assert "1 stored; 1 dead letters" in json.loads(out)["verdict"]
    status, out, _ = await caudal(
        database_url, "trace", "--topic", TOPIC, "--payload", "-", stdin=v1("a", 1, ("t", 1))[1]
    )
    assert status == 0
    assert (await caudal(database_url, "trace", "--topic", "no/thing"))[0] == 1


async def test_commit_instants_where_the_server_keeps_them(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    row = (await trace.by_payload(pool, Scheme(), *v1("a", 1, ("t", 1))[:2])).rows[0]
    if await pool.fetchval("select current_setting('track_commit_timestamp')") == "on":
        assert row.committed is not None
        assert row.committed >= row.received
    else:
        assert row.committed is None
