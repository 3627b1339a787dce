"""A message from the API to a sandbox phone, the phone's reply back, and the receipts; on every log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from caudal.app import router
from caudal.core.eventlog.settings import LogSettings
from caudal.core.metrics import Metrics
from caudal.messaging.settings import MessagingSettings
from caudal.registry.permissions import Role
from tests.messaging.connectors.conftest import LOG, PHONE, TENANT, Platform, provided_whatsapp


@pytest.fixture(params=["postgres", "kafka"])
async def flowing(
    request: Any, pool: asyncpg.Pool[Any], database_url: str, unstarted_api: Any
) -> AsyncIterator[Platform]:
    """Everything between a client and a phone, on one of the logs."""
    settings = LOG
    if request.param == "kafka":
        broker = request.getfixturevalue("kafka_broker")
        settings = LogSettings(
            log="kafka", kafka_bootstrap_servers=broker.servers, log_partitions=2, log_lease_seconds=6
        )
    made = Platform(pool, database_url, unstarted_api, settings)
    await made.start()
    await made.account(provided_whatsapp())
    await router.parts(made.life, database_url, settings, MessagingSettings(), Metrics())
    await made.worker("whatsapp")
    yield made
    await made.life.stop()
    assert made.life.failure is None


async def history(platform: Platform, headers: dict[str, str]) -> list[tuple[str, str]]:
    answer = await platform.api.client.get("/v1/conversations/orders/messages", headers=headers)
    found = [(row["content"], row["status"]) for row in answer.json()["messages"]]
    return sorted(found)


async def test_there_and_back(flowing: Platform) -> None:
    headers = await flowing.api.headers(TENANT, Role.MEMBER)
    body = {"conversation_id": "orders", "content": "hello", "recipient_id": f"whatsapp:{PHONE}"}
    answer = await flowing.api.client.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert await flowing.shown(count=1) == ["hello"]
    delivered = "select count(*) from caudal.message where status = $1"
    await flowing.query(delivered, "DELIVERED")
    await flowing.control.post(f"/control/phones/{PHONE}/read", json={})
    await flowing.query(delivered, "READ")
    written = {"account": "106540352242922", "text": "hi there"}
    await flowing.control.post(f"/control/phones/{PHONE}/messages", json=written)
    await flowing.query("select count(*) from caudal.message", until=lambda n: n == 2)
    assert [content for content, _ in await history(flowing, headers)] == ["hello", "hi there"]
    # And the person's answer reached the other's own inbox here.
    await flowing.query("select count(*) from caudal.delivery where channel = 'app'")
