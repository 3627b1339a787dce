"""A platform around one sandbox: the API that takes webhooks, a connector, and deliveries to hand it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from caudal.app import messaging
from caudal.app.connector import ConnectorParts, run_connector
from caudal.core import db
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.messaging import connectors, webhooks
from caudal.messaging.accounts import AccountView, ChannelAccounts, NewAccount
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.notify import Notifier
from caudal.messaging.records import outbound_records
from caudal.messaging.settings import MessagingSettings
from caudal.sandbox import demo
from caudal.sandbox.model import Account as Provided
from caudal.sandbox.model import Limits
from caudal.sandbox.server import Sandbox

TENANT = "acme"
PHONE = "+5511999998888"

CONVERSATION = """
insert into caudal.conversation(tenant_id, name) values ($1, $2)
on conflict (tenant_id, name) do update set name = excluded.name returning id
"""
MESSAGE = """
with c as (update caudal.conversation set message_count = message_count + 1 where id = $3
           returning message_count)
insert into caudal.message(id, tenant_id, conversation_id, place, sender, content, sent_at)
select $1, $2, $3, message_count, $4, $5, now() from c
"""
DELIVERY = """
insert into caudal.delivery(tenant_id, message_id, conversation_id, channel, address, expires_at)
values ($1, $2, $3, $4, $5, now() + interval '1 day') returning id
"""

LOG = LogSettings(log_lease_seconds=1, log_partitions=4)

QUICK: dict[str, Any] = {
    "connector_answer_timeout": 1.5,
    "connector_retry_first": 0.05,
    "connector_retry_most": 0.2,
    "connector_operator_pause": 0.3,
    "breaker_seconds": 0.4,
    "connector_patience": 0.5,
}


class Platform:
    """One tenant, one sandbox, and as many connector workers as a test asks for."""

    def __init__(self, pool: asyncpg.Pool[Any], url: str, api: Any, log_settings: LogSettings = LOG) -> None:
        self.pool = pool
        self.log_settings = log_settings
        self.url = url
        self.api = api
        self.life = Lifecycle()
        self.log: Any = None
        self.accounts = ChannelAccounts(api.parts.sealer)
        self.deliveries: Any = None
        self.sandbox: Any = None
        self.control: Any = None
        self.metrics = Metrics()
        self.tenant_id = 0

    async def start(self) -> None:
        self.tenant_id = await self.api.tenant(TENANT)
        working = await db.open_pool(self.url, minimum=2, maximum=16, role="caudal_messaging")
        self.life.on_stop("pool", working.close)
        self.working = working
        self.log = await messaging.open_log(self.life, working, self.url, self.log_settings, consume=True)
        notifier = Notifier(working)
        self.life.on_stop("notifier", notifier.stop)
        self.deliveries = Deliveries(working, self.log, notifier, MessagingSettings(delivery_max_attempts=4))
        self.sandbox = Sandbox(first_pause=0.05)
        await self.sandbox.start(self.life)
        self.control = httpx.AsyncClient(base_url=self.sandbox.url, trust_env=False, timeout=20)
        self.life.on_stop("control", self.control.aclose)
        readers = {
            name: connectors.make(name, self.settings().connector(name)) for name in ("whatsapp", "instagram")
        }
        for reader in readers.values():
            self.life.on_stop("reader", reader.close)
        # As in production: what the API does, it does as caudal_app.
        api_pool = self.api.parts.pool
        services = await messaging.api_services(
            self.life, api_pool, self.url, self.log_settings, MessagingSettings(), Metrics()
        )
        hooks = webhooks.Webhooks(api_pool, services["event_log"], self.accounts, readers)
        await self.api.start(webhooks=hooks, channel_accounts=self.accounts, **services)
        self.life.spawn("waiting", self._release())

    async def _release(self) -> None:
        while True:
            await self.deliveries.release_due()
            await asyncio.sleep(0.03)

    def settings(self, **change: Any) -> SendingSettings:
        base = {"whatsapp_api_base": self.sandbox.url, "instagram_api_base": self.sandbox.url}
        return SendingSettings(**{**base, **QUICK, **change})

    async def account(self, provided: Provided, **change: Any) -> AccountView:
        """Set up an account with us as it is with the provider, and tell the provider our webhook."""
        new = NewAccount(
            channel=provided.channel, provider_account=provided.id, token=provided.token,
            app_secret=provided.app_secret, verify_token=provided.verify_token, **change,
        )  # fmt: skip
        async with db.tenant_transaction(self.api.parts.pool, TENANT) as connection:
            made = await self.accounts.add(connection, new)
        provided.webhook_url = f"{self.api.url}{made.webhook_path}"
        self.sandbox.world.accounts[provided.id] = provided
        return made

    async def worker(
        self, name: str, life: Lifecycle | None = None, files: Any = None, **change: Any
    ) -> Metrics:
        """Start a connector worker; returns its metrics."""
        metrics = Metrics()
        settings = self.settings(**change)
        # Its own cache, as another process would have.
        accounts = ChannelAccounts(self.api.parts.sealer)
        made = ConnectorParts(self.working, self.log, accounts, self.deliveries, metrics, settings, files)
        await run_connector(life or self.life, name, made)
        return metrics

    async def send(
        self, *texts: str, to: str = PHONE, channel: str = "whatsapp", conversation: str = "c1"
    ) -> list[int]:
        """Deliveries as the router makes them; returns their ids."""
        async with self.working.acquire() as connection, connection.transaction():
            number = await connection.fetchval(CONVERSATION, self.tenant_id, conversation)
            made = []
            for text in texts:
                message = uuid4()
                await connection.execute(MESSAGE, message, self.tenant_id, number, "key:test", text)
                made.append(await connection.fetchval(DELIVERY, self.tenant_id, message, number, channel, to))
            records = await outbound_records(connection, made)
            await self.log.publish(records, connection)
        self.log.announce(*{record.topic for record in records})
        return made

    async def until(self, ids: list[int], *states: str, seconds: float = 15) -> list[str]:
        """The deliveries' states, once each is among `states`."""
        async with asyncio.timeout(seconds):
            while True:
                rows = await self.pool.fetch(
                    "select state from caudal.delivery where id = any($1) order by id", ids
                )
                found = [row["state"] for row in rows]
                if all(state in states for state in found):
                    return found
                await asyncio.sleep(0.02)

    async def delivery(self, number: int) -> Any:
        return await self.pool.fetchrow("select * from caudal.delivery where id = $1", number)

    async def shown(self, address: str = PHONE, count: int = 0) -> list[str]:
        """The texts that a phone was sent, in order, once there are `count`."""
        path = f"/control/phones/{address}/messages"
        found = (await self.control.get(path, params={"count": count, "wait": 10})).json()
        return [entry["text"] for entry in found if entry["direction"] == "in"]

    async def query(self, sql: str, *arguments: Any, until: Callable[[Any], bool] = bool) -> Any:
        """A value, once it is what the test waits for."""
        async with asyncio.timeout(15):
            while not until(value := await self.pool.fetchval(sql, *arguments)):
                await asyncio.sleep(0.02)
        return value


def provided_whatsapp(**limits: Any) -> Provided:
    made = demo.whatsapp_account()
    made.limits = Limits(**{"strangers": "open", **limits})
    return made


@pytest.fixture
async def platform(pool: asyncpg.Pool[Any], database_url: str, unstarted_api: Any) -> AsyncIterator[Platform]:
    made = Platform(pool, database_url, unstarted_api)
    await made.start()
    yield made
    await made.life.stop()
    assert made.life.failure is None
