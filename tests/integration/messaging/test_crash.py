"""API, routers, PostgreSQL and Kafka killed under load: every 202 ends in exactly one state.

What is sent goes to a stand-in for a provider in this process, which counts its calls. Connectors' own
crashes are under test with the connectors. CAUDAL_CRASH_SECONDS makes it last longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Record
from caudal.core.eventlog.worker import PASSING, LaneWorker
from caudal.core.metrics import Metrics
from caudal.messaging import topics
from caudal.messaging.deliveries import Deliveries, Sent, Verdict
from caudal.messaging.notify import Notifier
from caudal.messaging.settings import MessagingSettings
from tests.integration.messaging.stack import Stack, sign_in, stack

SECONDS = float(os.environ.get("CAUDAL_CRASH_SECONDS", "5"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + SECONDS)]
CONVERSATIONS = 6


class Provider:
    """Stands in for a connector and its provider: notes each call, answers with an id."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self.calls: list[tuple[str, int]] = []

    async def handle(self, record: Record) -> None:
        item = msgspec.json.decode(record.value, type=topics.OutboundRecord)
        intent = await self._deliveries.record_intent(item.delivery_id)
        if intent.verdict is not Verdict.CALL:
            return
        self.calls.append((item.conversation_id, int(item.content)))
        await self._deliveries.settle(item.delivery_id, intent.attempt, Sent(f"id-{item.delivery_id}"))


async def write(
    base: str, headers: dict[str, str], conversation: str, until: asyncio.Event, *others: str
) -> list[str]:
    """Write numbers into a conversation one after the other, each until it is accepted; their ids.

    With `others` (more APIs), each attempt goes to the next of them.
    """
    accepted = []
    doors = itertools.cycle([base, *others])
    async with httpx.AsyncClient(timeout=3, headers=headers) as client:
        for number in itertools.count():
            body = {"conversation_id": conversation, "content": str(number),
                    "recipient_id": f"whatsapp:+55119{conversation[1:]:0>8}"}  # fmt: skip
            while True:
                try:
                    answer = await client.post(
                        f"{next(doors)}/v1/messages", json=body,
                        headers={"Idempotency-Key": f"{conversation} {number}"},
                    )  # fmt: skip
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 202:
                    accepted.append(answer.json()["message_id"])
                    break
                # While PostgreSQL is away nothing is promised; nor is anything of ours called wrong.
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
            if until.is_set():
                return accepted
            await asyncio.sleep(0.01)
    raise AssertionError


async def left(made: Stack) -> tuple[int, int] | None:
    """Messages that nobody has routed and deliveries that nobody has settled; None while nobody answers."""
    try:
        row = await made.pool.fetchrow(
            "select (select count(*) from caudal.message where routed_at is null) as messages,"
            " (select count(*) from caudal.delivery where state in ('pending', 'sending')) as deliveries"
        )
    except PASSING:
        return None
    assert row is not None
    return row["messages"], row["deliveries"]


async def settle(made: Stack) -> None:
    """Return once nothing is left to do; fail when for half a minute nothing was done."""
    before, since = None, time.monotonic()
    while (now := await left(made)) != (0, 0):
        if now is not None and now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 30:
            pytest.fail(await made.standing())
        await asyncio.sleep(0.1)  # no event of the database says so


@asynccontextmanager
async def providing(made: Stack) -> AsyncIterator[Provider]:
    """The provider's stand-in at work, in this process."""
    log = await made.log()
    consumer = await log.subscribe([topics.WHATSAPP_OUTBOUND], topics.WHATSAPP_GROUP)
    provider = Provider(Deliveries(made.pool, log, Notifier(made.pool), MessagingSettings()))
    lanes = LaneWorker(made.pool, consumer, provider.handle, LogMetrics(Metrics()), concurrency=16)
    task = asyncio.create_task(lanes.run(), name="provider")
    try:
        yield provider
    finally:
        task.cancel()
        await asyncio.wait([task])
        await consumer.close()
        await log.stop()


# It has its own crowd of processes, and patience that ends.
@pytest.mark.alone
@pytest.mark.timeout(400 + SECONDS)
@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_every_202_ends_in_exactly_one_state(kind: str, request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("kafka_broker") if kind == "kafka" else None
    victims = ["router", "api", "router two", "postgres", "router", *(["kafka"] if broker else [])]
    chance = random.Random(7)
    async with stack(broker, "api", "router", "router two") as made, providing(made) as provider:
        base = made.url
        headers = await sign_in(base)
        done = asyncio.Event()
        writers = [
            asyncio.create_task(write(base, headers, f"c{n}", done), name=f"c{n}")
            for n in range(CONVERSATIONS)
        ]
        began = asyncio.get_running_loop().time()
        for victim in itertools.cycle(victims):
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            await made.kill(victim)
            if asyncio.get_running_loop().time() - began > SECONDS and set(victims) <= set(made.kills):
                break
        watcher = asyncio.create_task(made.watch(), name="watcher")
        done.set()
        accepted = {task.get_name(): await task for task in writers}
        await settle(made)
        watcher.cancel()

        rows = await made.pool.fetch(
            "select c.name, m.id, m.content::int as number, d.state,"
            " count(*) over (partition by m.id) as deliveries from caudal.message m"
            " join caudal.conversation c on c.id = m.conversation_id left join caudal.delivery d"
            " on d.message_id = m.id and d.channel <> 'app' order by c.id, m.place"
        )
        calls = list(provider.calls)
    report = f"{len(rows)} messages, {len(calls)} calls, kills: {made.kills}"
    for conversation, ids in accepted.items():
        mine = [row for row in rows if row["name"] == conversation]
        # Nothing lost, nothing twice, in order.
        assert [str(row["id"]) for row in mine] == ids, report
        assert [row["number"] for row in mine] == list(range(len(ids))), report
    assert all(row["deliveries"] == 1 for row in rows), report
    unknown = {(row["name"], row["number"]) for row in rows if row["state"] == "unknown"}
    assert {row["state"] for row in rows} <= {"sent", "unknown"}, report
    # Called once each, but for those that say that nobody knows; and in order.
    assert len(calls) == len(set(calls)), report
    assert set(calls) | unknown == {(row["name"], row["number"]) for row in rows}, report
    for conversation in accepted:
        numbers = [number for name, number in calls if name == conversation]
        assert numbers == sorted(numbers), report
    assert len(unknown) <= len(made.kills) * CONVERSATIONS, report
    print(report, f"unknown: {len(unknown)}")


async def test_two_apis_killed_in_turn_keep_every_202_once_and_in_order() -> None:
    """What one process accepted when it was killed, the other knows by its key."""
    chance = random.Random(11)
    async with stack(None, "api", "api two") as made:
        headers = await sign_in(made.url)
        done = asyncio.Event()
        writers = [
            asyncio.create_task(write(made.url, headers, f"c{n}", done, made.second_url), name=f"c{n}")
            for n in range(CONVERSATIONS)
        ]
        began = asyncio.get_running_loop().time()
        for victim in itertools.cycle(["api", "api two"]):
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            await made.kill(victim)
            if asyncio.get_running_loop().time() - began > SECONDS and len(made.kills) >= 4:
                break
        done.set()
        accepted = {task.get_name(): await task for task in writers}
        rows = await made.pool.fetch(
            "select c.name, m.id, m.content::int as number from caudal.message m"
            " join caudal.conversation c on c.id = m.conversation_id order by c.id, m.place"
        )
        logged = await made.pool.fetch('select key, value from caudal.log_record order by "offset"')
    report = f"{len(rows)} messages, kills: {made.kills}"
    for conversation, ids in accepted.items():
        mine = [row for row in rows if row["name"] == conversation]
        assert [str(row["id"]) for row in mine] == ids, report
        assert [row["number"] for row in mine] == list(range(len(ids))), report
        records = [msgspec.json.decode(row["value"]) for row in logged if row["key"] == conversation]
        assert [record["message_id"] for record in records] == ids, report
    assert len(rows) == sum(map(len, accepted.values())), report
    print(report)
