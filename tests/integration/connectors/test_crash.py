"""Connectors killed under load: nothing lost, nothing doubled that is not marked unknown, order kept."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from caudal.core.supervisor import Child
from caudal.sandbox.model import Behaviour
from tests.messaging.connectors.conftest import Platform, provided_whatsapp

CONVERSATIONS, EACH, KILLS = 12, 14, 4


async def killer(children: list[Child], kills: int, platform: Platform) -> None:
    """Kill one worker after the other in the middle of its work, and start it again."""
    for number in range(kills):
        child = children[number % len(children)]
        calls = len(platform.sandbox.world.calls)
        # Not before it works: killing what has nothing to do proves nothing.
        async with asyncio.timeout(30):
            while len(platform.sandbox.world.calls) < calls + 7:
                await platform.sandbox.world.change()
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        await child.died()
        await child.start(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("misbehaviour", [Behaviour(latency_ms=40), Behaviour(latency_ms=40, duplicates=1,
    shuffle=True, fault="error", code=131000, rate=0.1)], ids=["behaves", "misbehaves"])  # fmt: skip
async def test_killed_under_load(platform: Platform, connector: Any, misbehaviour: Behaviour) -> None:
    provided = provided_whatsapp(per_second=1000, pair_burst=1000)
    provided.behaviour = misbehaviour
    await platform.account(provided, per_second=1000, pair_burst=1000)
    settings = {"connector_concurrency": 6, "connector_answer_timeout": 5, "breaker_failures": 100_000}
    children = [await connector("whatsapp", **settings) for _ in range(2)]
    sent: dict[str, list[int]] = {}
    for n in range(CONVERSATIONS):
        sent[f"+55119{n:08}"] = []
    killing = asyncio.create_task(killer(children, KILLS, platform), name="killer")
    for m in range(EACH):
        for n, (phone, numbers) in enumerate(sent.items()):
            numbers += await platform.send(f"{m}", to=phone, conversation=f"c{n}")
        # A steady load: the killer is to find work whenever it comes.
        await asyncio.sleep(0.25)
    await killing
    everything = [number for numbers in sent.values() for number in numbers]
    await platform.until(everything, "delivered", "unknown", "failed", seconds=60)
    # Receipts of what was called and not answered are on their way; the rest is what nobody ever called.
    async with asyncio.timeout(20):
        while platform.sandbox.hooks.waiting:
            await asyncio.sleep(0.05)
    await platform.query(
        "select bool_and(g.committed = p.next_offset) from caudal.log_partition p"
        " join caudal.log_group g using (topic_id, partition) join caudal.log_topic t on t.id = p.topic_id"
        " where t.name like 'whatsapp-%'"
    )
    unknown = lost = doubled = reordered = 0
    for phone, numbers in sent.items():
        shown = await platform.shown(phone)
        order = [int(text) for text in dict.fromkeys(shown)]
        reordered += order != sorted(order)
        for text, number in enumerate(numbers):
            row = await platform.delivery(number)
            count = shown.count(str(text))
            unknown += row["state"] == "unknown"
            lost += count == 0 and row["state"] not in ("unknown", "failed")
            doubled += count > 1
            if row["state"] == "delivered":
                assert count == 1
    assert (lost, doubled, reordered) == (0, 0, 0)
    # Whom a kill met between its intent and its call; at most its lanes, each time.
    assert unknown <= KILLS * 6


async def test_an_orderly_stop_leaves_nothing_unknown(platform: Platform, connector: Any) -> None:
    provided = provided_whatsapp(per_second=1000, pair_burst=1000)
    provided.behaviour = Behaviour(latency_ms=150)
    await platform.account(provided, per_second=1000, pair_burst=1000)
    child = await connector("whatsapp", connector_answer_timeout=5)
    numbers = []
    for n in range(30):
        numbers += await platform.send("x", to=f"+55119{n:08}", conversation=f"c{n}")
    async with asyncio.timeout(20):
        while len(platform.sandbox.world.calls) < 5:
            await platform.sandbox.world.change()
    await child.stop(timeout=20)
    states = {row["state"] for row in await platform.pool.fetch("select state from caudal.delivery")}
    assert states <= {"pending", "sent", "delivered"}
    await connector("whatsapp")
    await platform.until(numbers, "delivered")
    for n in range(30):
        assert await platform.shown(f"+55119{n:08}") == ["x"]


async def test_a_connector_shows_metrics_and_health(platform: Platform, connector: Any) -> None:
    await platform.account(provided_whatsapp())
    child = await connector("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "delivered")
    base = child.endpoints["whatsapp_metrics_url"].removesuffix("/actuator/prometheus")
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        shown = (await client.get("/actuator/prometheus")).text
        health = (await client.get("/actuator/health")).json()
    assert 'messages_sent_total{channel="whatsapp",status="sent"} 1.0' in shown
    assert 'circuit_breaker_state{channel="whatsapp"} 0.0' in shown
    assert 'connector_api_duration_seconds_bucket{channel="whatsapp",le="0.005"}' in shown
    assert health["status"] == "UP"
    assert {"database", "log"} <= health["components"].keys()
