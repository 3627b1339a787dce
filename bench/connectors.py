"""Connectors: two workers against one, how fast a backlog drains, from the log to the provider's door."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec

from bench import stack
from caudal.app.messaging import open_log
from caudal.core import db
from caudal.core.eventlog.port import Outgoing
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.seal import Sealer
from caudal.core.supervisor import Child, child_environ
from caudal.messaging import topics
from caudal.messaging.accounts import ChannelAccounts, NewAccount
from caudal.messaging.records import outbound_records
from caudal.registry.tenants import create_tenant
from caudal.sandbox import demo

Row = dict[str, Any]
KEY = "bench" * 10
TENANT = "default"
# Few enough under way that the provider's 50 ms are what a worker waits for, not the machine.
LANES = 4

PREPARE = """
with c as (
  insert into caudal.conversation(tenant_id, name) select $1, $2 || n from generate_series(1, $3) n
  returning id
), m as (
  insert into caudal.message(id, tenant_id, conversation_id, place, sender, content, sent_at)
  select gen_random_uuid(), $1, c.id, p, 'key:bench', 'hello', now()
  from c cross join generate_series(1, $4) p
  returning id, conversation_id
)
insert into caudal.delivery(tenant_id, message_id, conversation_id, channel, address, expires_at)
select $1, m.id, m.conversation_id, 'whatsapp', '+5511' || (900000000 + m.conversation_id),
       now() + interval '1 day'
from m returning id
"""

# Accepted and not routed yet; each in a conversation of its own.
ACCEPTED = """
with c as (
  insert into caudal.conversation(tenant_id, name, message_count) select $1, $2 || n, 1
  from generate_series(1, $3) n returning id, name
), w as (
  insert into caudal.participant(tenant_id, conversation_id, who)
  select $1, c.id, x.who from c cross join lateral
    (values ('key:bench'), ('whatsapp:+5511' || (900000000 + c.id))) x(who)
), m as (
  insert into caudal.message(id, tenant_id, conversation_id, place, sender, recipient, content, sent_at)
  select gen_random_uuid(), $1, c.id, 1, 'key:bench', 'whatsapp:+5511' || (900000000 + c.id), 'hello', now()
  from c returning id, conversation_id, recipient
)
select m.id::text, c.name, m.recipient from m join c on c.id = m.conversation_id
"""


class Bench:
    """A tenant with a number at a sandbox of its own process."""

    def __init__(self, url: str, pool: asyncpg.Pool[Any], log: Any, control: httpx.AsyncClient) -> None:
        self.url = url
        self.pool = pool
        self.log = log
        self.control = control
        self.tenant_id = 0

    async def prepare(self) -> None:
        self.tenant_id = await create_tenant(self.pool, TENANT)
        provided = demo.whatsapp_account()
        async with db.tenant_transaction(self.pool, TENANT) as connection:
            new = NewAccount(
                channel="whatsapp", provider_account=provided.id, token=provided.token,
                app_secret=provided.app_secret, verify_token=provided.verify_token,
                per_second=1e5, pair_burst=10**6,
            )  # fmt: skip
            await ChannelAccounts(Sealer(KEY)).add(connection, new)

    async def provider(self, latency_ms: float) -> None:
        account = (await self.control.get("/control/accounts")).json()[0]
        account["limits"] = {"per_second": 1e5, "pair_burst": 10**6, "strangers": "open"}
        account["behaviour"] = {"latency_ms": latency_ms}
        (await self.control.put("/control/accounts", json=account)).raise_for_status()

    async def fill(self, conversations: int, each: int) -> int:
        """A backlog; returns how many deliveries."""
        async with self.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(PREPARE, self.tenant_id, uuid4().hex, conversations, each)
            await self.log.publish(
                await outbound_records(connection, [row["id"] for row in rows]), connection
            )
        self.log.announce("whatsapp-outbound")
        return len(rows)

    async def accept(self, messages: int) -> int:
        """A backlog for routers, each message in a conversation of its own; returns how many."""
        async with self.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(ACCEPTED, self.tenant_id, uuid4().hex, messages)
            records = [
                topics.MessageRecord(
                    message_id=row["id"], conversation_id=row["name"], sender_id="key:bench",
                    recipient_id=row["recipient"], content="hello", timestamp=0,
                    event_type=topics.MESSAGE_SENT, tenant=TENANT,
                )
                for row in rows
            ]  # fmt: skip
            await self.log.publish(
                [Outgoing(topics.MESSAGES, one.conversation_id, msgspec.json.encode(one)) for one in records],
                connection,
            )
        self.log.announce(topics.MESSAGES)
        return len(rows)

    async def calls(self, count: int) -> list[float]:
        """When each of `count` sends reached the provider, which then forgets them and how it behaves."""
        while True:
            found = (await self.control.get("/control/calls", params={"count": count, "wait": 30})).json()
            if len(found) >= count:
                await self.control.delete("/control/")
                return [call["at"] for call in found]

    @asynccontextmanager
    async def workers(self, count: int, *, routers: int = 0, **environ: str) -> AsyncIterator[list[Child]]:
        with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
            values = {
                "DATABASE_URL": self.url, "CAUDAL_MASTER_KEY": KEY,
                "WHATSAPP_API_BASE": str(self.control.base_url),
                "WHATSAPP_METRICS_PORT": "0", "ROUTER_METRICS_PORT": "0", "LOG_LEVEL": "error", **environ,
            }  # fmt: skip
            commands: list[tuple[str, ...]] = [("caudal", "connector", "run", "whatsapp")] * count
            commands += [("caudal", "router")] * routers
            made = [
                Child(f"worker {n}", command, child_environ(os.environ, **values), Path(folder) / f"{n}.log")
                for n, command in enumerate(commands)
            ]
            try:
                await asyncio.gather(*(child.start(timeout=60) for child in made))
                yield made
            finally:
                for child in made:
                    await child.stop(timeout=30)


@asynccontextmanager
async def prepared() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as down:
        server = await down.enter_async_context(stack.database())
        folder = down.enter_context(tempfile.TemporaryDirectory(prefix="caudal-bench-log-"))
        sandbox = Child(
            "sandbox",
            ("caudal", "sandbox", "--port", "0"),
            child_environ(os.environ),
            Path(folder) / "sandbox.log",
        )
        await sandbox.start()
        down.push_async_callback(sandbox.stop)
        pool = await db.open_pool(server.url, minimum=1, maximum=4)
        life = Lifecycle()
        down.push_async_callback(pool.close)
        down.push_async_callback(life.stop)
        log = await open_log(life, pool, server.url, LogSettings(), consume=False)
        control = httpx.AsyncClient(base_url=sandbox.endpoints["sandbox_url"], trust_env=False, timeout=60)
        down.push_async_callback(control.aclose)
        made = Bench(server.url, pool, log, control)
        await made.prepare()
        yield made


def steady(at: list[float], first: float = 0.2, last: float = 0.8) -> float:
    """Calls a second between these shares of all calls: without the start and the last stragglers."""
    low, high = int(len(at) * first), int(len(at) * last) - 1
    return (high - low) / (at[high] - at[low])


SHARED = """
select count(*) = 2 and bool_and(owners = $1 and free = 0) from (
  select count(distinct owner) as owners, count(*) filter (where owner is null) as free from caudal.log_group
  where name in ('whatsapp-connector-group', 'router-worker-group') group by name) g
"""


async def scaling(made: Bench, deliveries: int, rounds: int) -> list[Row]:
    """A router and a connector, then two of each, in turn; the same number of messages each time.

    Each in a conversation of its own, so that the partitions, and with them the workers, have the same to do.
    Workers are up and have shared the partitions before there is work. Counted up to 70% of the calls: what
    one of two workers has left over at the end says how names hash, not how workers scale.
    """
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count in rates:
            # Each time anew: what `calls` clears away is the provider's slowness too.
            await made.provider(50)
            async with made.workers(count, routers=count, CONNECTOR_CONCURRENCY=str(LANES)):
                async with asyncio.timeout(30):
                    while not await made.pool.fetchval(SHARED, count):
                        await asyncio.sleep(0.1)
                total = await made.accept(deliveries)
                rates[count].append(steady(await made.calls(total), 0.1, 0.7))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return [
        {
            "what": f"provider at 50 ms, {LANES} lanes a worker, {deliveries} messages, {rounds} rounds",
            "one/s": " ".join(f"{rate:.1f}" for rate in rates[1]),
            "two/s": " ".join(f"{rate:.1f}" for rate in rates[2]),
            "at most": f"{LANES * 20} and {LANES * 40}",
        },
        {
            "what": "two routers and connectors against one of each (at least 1.8)",
            "ratio": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
        },
    ]


async def drain(made: Bench, deliveries: int) -> Row:
    """A backlog that waited for its provider, with the usual settings."""
    await made.provider(0)
    total = await made.fill(200, deliveries // 200)
    async with made.workers(1):
        rate = steady(await made.calls(total))
    return {"what": "a backlog drains, one worker, provider at 0 ms", "deliveries/s": round(rate)}


async def latency(made: Bench, messages: int) -> Row:
    """From the commit of an outbound record to the provider, nothing else going on."""
    await made.provider(0)
    waits = []
    async with made.workers(1):
        await asyncio.sleep(2)
        for _ in range(messages):
            await made.fill(1, 1)
            published = time.time()
            waits.append(1000 * ((await made.calls(1))[0] - published))
            await asyncio.sleep(0.05)
    waits.sort()
    what = "outbound record committed to provider called, idle"
    p50, p95 = statistics.median(waits), waits[int(len(waits) * 0.95)]
    return {"what": what, "p50 ms": round(p50, 1), "p95 ms": round(p95, 1)}


async def run(quick: bool) -> list[Row]:
    """Every measurement of this suite."""
    async with prepared() as made:
        rows = await scaling(made, 240 if quick else 800, 1 if quick else 5)
        rows.append(await drain(made, 600 if quick else 4000))
        rows.append(await latency(made, 20 if quick else 200))
    return rows
