"""API, routers, PostgreSQL and Kafka killed under load: every 202 ends in exactly one state.

What is sent goes to a stand-in for a provider in this process, which counts its calls. Connectors' own
crashes are under test with the connectors. CAUDAL_CRASH_SECONDS makes it last longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from caudal.core import db
from caudal.core.eventlog.kafka import KafkaLog
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Record
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.worker import PASSING, LaneWorker
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import Child, StartError, child_environ
from caudal.messaging import topics
from caudal.messaging.deliveries import Deliveries, Sent, Verdict
from caudal.messaging.notify import Notifier
from caudal.messaging.settings import MessagingSettings
from caudal.registry.tenants import create_tenant
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("CAUDAL_CRASH_SECONDS", "5"))
CONVERSATIONS = 6
LEASE = 1.0


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


class Stack:
    """A durable PostgreSQL, the API and two routers as processes, and the provider here."""

    def __init__(self, folder: Path, broker: Any) -> None:
        self.folder = folder
        self.broker = broker
        self.server = EmbeddedPostgres(folder / "pg", port=free_port())
        self.kills: list[str] = []
        self.port = free_port()
        self.children: dict[str, Child] = {}
        self._closers: list[Any] = []

    async def start(self) -> None:
        await self.server.start()
        await migrate(self.server.url)
        self.pool = await db.open_pool(self.server.url, minimum=1, maximum=8)
        if not await self.pool.fetchval("select count(*) from caudal.tenant"):
            await create_tenant(self.pool, "default")
        environ = child_environ(
            os.environ, DATABASE_URL=self.server.url, CAUDAL_MASTER_KEY="x" * 40, API_PORT=str(self.port),
            ROUTER_METRICS_PORT="0", LOG_LEASE_SECONDS=str(LEASE), LOG="kafka" if self.broker else "postgres",
            KAFKA_BOOTSTRAP_SERVERS=self.broker.servers if self.broker else "none:1", LOG_PARTITIONS="4",
            RATE_LIMIT_ADDRESS="0",
        )  # fmt: skip
        for name in ("api", "router", "router two"):
            out = self.folder / f"{name}.log"
            self.children[name] = Child(name, ("caudal", name.split()[0]), environ, out)
        await asyncio.gather(*(self.up(name) for name in self.children))
        settings = LogSettings(
            log_lease_seconds=LEASE, log_partitions=4,
            kafka_bootstrap_servers=self.broker.servers if self.broker else "none:1",
        )  # fmt: skip
        kind: Any = KafkaLog if self.broker else PostgresLog
        log = kind(self.pool, self.server.url, settings)
        await log.start()
        await log.ensure(topics.topics(4))
        consumer = await log.subscribe([topics.WHATSAPP_OUTBOUND], topics.WHATSAPP_GROUP)
        deliveries = Deliveries(self.pool, log, Notifier(self.pool), MessagingSettings())
        self.provider = Provider(deliveries)
        lanes = LaneWorker(self.pool, consumer, self.provider.handle, LogMetrics(Metrics()), concurrency=16)
        self._task = asyncio.create_task(lanes.run(), name="provider")
        self._closers += [consumer.close, log.stop]

    async def kill(self, name: str) -> None:
        """SIGKILL, and up again."""
        self.kills.append(name)
        if name == "postgres":
            self.server.kill()
            await self.server.start()
        elif name == "kafka":
            await asyncio.to_thread(self.broker.kill)
            await asyncio.to_thread(self.broker.start)
        else:
            child = self.children[name]
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
                await child.died()
            await self.up(name)

    async def up(self, name: str) -> None:
        for _ in range(5):
            try:
                await self.children[name].start()
            except StartError:
                continue
            return
        pytest.fail(f"{name} did not come back:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")

    async def watch(self) -> None:
        """Whatever died of another's death comes back, as under any supervisor."""
        while True:
            for name, child in self.children.items():
                if child.pid is not None and not alive(child.pid):
                    await child.died()
                    await self.up(name)
            await asyncio.sleep(0.2)

    async def standing(self) -> str:
        """Where everything stands, for whoever reads of a failure."""
        rows = await self.pool.fetch(
            "select state, parked, count(*) from caudal.delivery group by 1, 2 union all"
            " select 'unrouted', waiting, count(*) from caudal.message where routed_at is null group by 1, 2"
        )
        lags = await self.pool.fetch(
            "select g.name, t.name, g.partition, p.next_offset - g.committed, g.owner"
            " from caudal.log_group g join caudal.log_partition p using (topic_id, partition)"
            " join caudal.log_topic t on t.id = topic_id where p.next_offset > g.committed"
        )
        logs = {name: (self.folder / f"{name}.log").read_text()[-1500:] for name in self.children}
        return f"{[tuple(r) for r in rows]} {[tuple(r) for r in lags]} {self.kills} {logs}"

    async def stop(self) -> None:
        for child in self.children.values():
            await child.stop()
        if hasattr(self, "_task"):
            self._task.cancel()
            await asyncio.wait([self._task])
        for close in self._closers:
            await close()
        await self.pool.close()
        await self.server.stop()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def stack(broker: Any) -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="caudal-crash-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        made = Stack(Path(folder), broker)
        try:
            await made.start()
            yield made
        finally:
            await made.stop()


async def sign_in(base: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:
        person = {"username": "ana", "password": "secret", "email": "ana@example.com"}
        (await client.post("/auth/register", json=person)).raise_for_status()
        token = (await client.post("/auth/token", json=person)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def write(base: str, headers: dict[str, str], conversation: str, until: asyncio.Event) -> list[str]:
    """Write numbers into a conversation one after the other, each until it is accepted; their ids."""
    accepted = []
    async with httpx.AsyncClient(base_url=base, timeout=3, headers=headers) as client:
        for number in itertools.count():
            body = {"conversation_id": conversation, "content": str(number),
                    "recipient_id": f"whatsapp:+55119{conversation[1:]:0>8}"}  # fmt: skip
            while True:
                try:
                    answer = await client.post(
                        "/v1/messages", json=body, headers={"Idempotency-Key": f"{conversation} {number}"}
                    )
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


async def settle(made: Stack) -> None:
    """Return once nothing is left to do; fail when for half a minute nothing was done."""
    before, since = None, time.monotonic()
    while True:
        try:
            left = await made.pool.fetchrow(
                "select (select count(*) from caudal.message where routed_at is null) as messages,"
                " (select count(*) from caudal.delivery where state in ('pending', 'sending')) as deliveries"
            )
        except PASSING:
            left = before
        if left == (0, 0):
            return
        if left != before:
            before, since = left, time.monotonic()
        elif time.monotonic() - since > 30:
            pytest.fail(await made.standing())
        await asyncio.sleep(0.1)  # no event of the database says so


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_every_202_ends_in_exactly_one_state(kind: str, request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("kafka_broker") if kind == "kafka" else None
    victims = ["router", "api", "router two", "postgres", "router", *(["kafka"] if broker else [])]
    chance = random.Random(7)
    async with stack(broker) as made:
        base = f"http://127.0.0.1:{made.port}"
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
        calls = list(made.provider.calls)
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
