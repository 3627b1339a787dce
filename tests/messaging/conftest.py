"""Messaging on a real database, with a router in this process and the API on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from caudal.app import files, messaging, router
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.settings import MessagingSettings

# Short, so that a test of taking over need not wait long.
LOG = LogSettings(log_lease_seconds=1.0, log_partitions=4)


# Small, so that a file that is too large costs a test little.
LARGEST = 12 * 1024 * 1024


class Messaging:
    """The API with messaging's services, and routers to start beside it."""

    def __init__(self, api: Any, url: str) -> None:
        self.api = api
        self.url = url
        self.client = api.client
        self.services = dict(api.parts.services)
        self.admin: asyncpg.Pool[Any] = api.admin
        self.routers: list[Lifecycle] = []
        self.folder = Path()

    async def route(self, settings: MessagingSettings | None = None) -> Lifecycle:
        """Start a router."""
        life = Lifecycle()
        self.routers.append(life)
        await router.parts(life, self.url, LOG, settings or MessagingSettings(), Metrics())
        return life

    async def until(self, question: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
        """The first true answer."""
        async with asyncio.timeout(seconds):
            while not (answer := await question()):
                await asyncio.sleep(0.01)
        return answer

    async def send(
        self, headers: dict[str, str], conversation: str, content: str = "hello", **more: Any
    ) -> str:
        """Send a message that must be accepted; its id."""
        extra = {"Idempotency-Key": more.pop("key")} if "key" in more else {}
        answer = await self.client.post(
            "/v1/messages",
            json={"conversation_id": conversation, "content": content, **more},
            headers={**headers, **extra},
        )
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body["status"] == "ACCEPTED"
        assert body["conversation_id"] == conversation
        message_id: str = body["message_id"]
        return message_id

    async def routed(self, *message_ids: str) -> None:
        """Return once these messages have their deliveries."""
        await self.until(
            lambda: self.admin.fetchval(
                "select count(*) = $2 from caudal.message"
                " where id = any($1::uuid[]) and routed_at is not null",
                list(message_ids), len(message_ids),
            )
        )  # fmt: skip

    async def deliveries(self, message_id: str) -> dict[tuple[str, str], str]:
        """State by channel and address."""
        rows = await self.admin.fetch(
            "select channel, address, state from caudal.delivery where message_id = $1::uuid", message_id
        )
        return {(row["channel"], row["address"]): row["state"] for row in rows}


@pytest.fixture
async def platform(unstarted_api: Any, database_url: str, tmp_path: Path) -> AsyncIterator[Messaging]:
    """Messaging, without a router until the test starts one."""
    parts = unstarted_api.parts
    life = Lifecycle()
    services = await messaging.api_services(
        life, parts.pool, database_url, LOG, MessagingSettings(), parts.metrics
    )
    settings = FileSettings(files_url=str(tmp_path / "files"), file_max_bytes=LARGEST)
    await files.add(life, parts, settings)
    await files.add_sockets(life, parts, RealtimeSettings(socket_send_seconds=0.5))
    await unstarted_api.start(**services)
    made = Messaging(unstarted_api, database_url)
    made.folder = tmp_path
    try:
        yield made
    finally:
        for started in reversed(made.routers):
            await started.stop()
        await life.stop()
