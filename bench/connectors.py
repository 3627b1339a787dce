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

from bench import stack
from caudal.app.messaging import open_log
from caudal.core import db
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.seal import Sealer
from caudal.core.supervisor import Child, child_environ
from caudal.messaging.accounts import ChannelAccounts, NewAccount
from caudal.messaging.deliveries import outbound_records
from caudal.registry.tenants import create_tenant
from caudal.sandbox import demo

Row = dict[str, Any]
KEY = "bench" * 10
TENANT = "bench"
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

    async def calls(self, count: int) -> list[float]:
        """When each of `count` sends reached the provider."""
        while True:
            found = (await self.control.get("/control/calls", params={"count": count, "wait": 30})).json()
            if len(found) >= count:
                await self.control.delete("/control/")
                return [call["at"] for call in found]

    @asynccontextmanager
    async def workers(self, count: int, **environ: str) -> AsyncIterator[list[Child]]:
        with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
            values = {
                "DATABASE_URL": self.url, "CAUDAL_MASTER_KEY": KEY,
                "WHATSAPP_API_BASE": str(self.control.base_url),
                "WHATSAPP_METRICS_PORT": "0", "LOG_LEVEL": "error", **environ,
            }  # fmt: skip
            made = [
                Child(
                    f"connector {n}", ("caudal", "connector", "run", "whatsapp"),
                    child_environ(os.environ, **values), Path(folder) / f"{n}.log",
                )
                for n in range(count)
            ]  # fmt: skip
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


def steady(at: list[float]) -> float:
    """Calls a second in the middle three fifths: without the start and the last stragglers."""
    first, last = len(at) // 5, 4 * len(at) // 5
    return (last - first) / (at[last] - at[first])


async def scaling(made: Bench, deliveries: int, rounds: int) -> list[Row]:
    """One worker and two in turn, so that what else the machine does meets both."""
    await made.provider(50)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count in rates:
            total = await made.fill(120, deliveries // 120)
            async with made.workers(count, CONNECTOR_CONCURRENCY=str(LANES)):
                rates[count].append(steady(await made.calls(total)))
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    what = f"provider at 50 ms, {LANES} calls under way a worker"
    ceiling = f"{LANES * 20} and {LANES * 40}"
    return [
        {
            "what": what,
            "one/s": round(one),
            "two/s": round(two),
            "ratio": round(two / one, 2),
            "at most": ceiling,
        }
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
        rows = await scaling(made, 480 if quick else 1200, 1 if quick else 3)
        rows.append(await drain(made, 600 if quick else 4000))
        rows.append(await latency(made, 20 if quick else 200))
    return rows
