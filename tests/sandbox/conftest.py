"""A running sandbox, and a listener that keeps the webhooks it gets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.sandbox.model import Account, Limits
from caudal.sandbox.server import Sandbox


class Listener:
    """A business's webhook address: verifies signatures, answers with `status`, keeps what it took."""

    def __init__(self) -> None:
        self.status = 200
        self.taken: list[dict[str, Any]] = []
        self.refused = 0
        self.bad_signatures = 0
        self.url = ""
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                status, answer = await self._take(head, fields, body)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n\r\n{answer}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _take(self, head: str, fields: dict[str, str], body: bytes) -> tuple[int, str]:
        if head.startswith("GET"):
            query = httpx.URL("http://x" + head.split(" ")[1]).params
            if query["hub.mode"] == "subscribe" and query["hub.verify_token"] == "verify-me":
                return 200, query["hub.challenge"]
            return 403, ""
        wanted = "sha256=" + hmac.new(b"app-secret", body, hashlib.sha256).hexdigest()
        async with self._changed:
            if fields.get("x-hub-signature-256") != wanted:
                self.bad_signatures += 1
            if self.status == 200:
                self.taken.append(msgspec.json.decode(body))
            else:
                self.refused += 1
            self._changed.notify_all()
        return self.status, ""

    async def wait(self, count: int) -> list[dict[str, Any]]:
        """The first `count` webhooks, once they are here."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.taken) >= count)
        return self.taken

    async def wait_refused(self, count: int) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.refused >= count)

    def statuses(self) -> list[tuple[str, str]]:
        """WhatsApp statuses so far, as (id, status)."""
        return [
            (status["id"], status["status"])
            for hook in self.taken
            for entry in hook["entry"]
            for change in entry.get("changes", [])
            for status in change["value"].get("statuses", [])
        ]


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    await made.start()
    yield made
    await made.stop()


def whatsapp_account(url: str | None, **more: Any) -> Account:
    fields: dict[str, Any] = {
        "channel": "whatsapp",
        "id": "106540352242922",
        "address": "+15550783881",
        "token": "wa-token",
        "app_secret": "app-secret",
        "verify_token": "verify-me",
        "webhook_url": url,
        "templates": ["hello"],
        "limits": Limits(strangers="open"),
    }
    return Account(**{**fields, **more})


def instagram_account(url: str | None, **more: Any) -> Account:
    fields: dict[str, Any] = {
        "channel": "instagram",
        "id": "17841400000000001",
        "address": "@shop",
        "token": "ig-token",
        "app_secret": "app-secret",
        "verify_token": "verify-me",
        "webhook_url": url,
        "limits": Limits(per_second=300, media_per_second=10, pair_interval_s=0.001, pair_burst=1000),
    }
    return Account(**{**fields, **more})


@pytest.fixture
async def sandbox(listener: Listener) -> AsyncIterator[Sandbox]:
    life = Lifecycle()
    made = Sandbox(first_pause=0.05)
    await made.start(life)
    for account in (whatsapp_account(listener.url), instagram_account(listener.url)):
        made.world.accounts[account.id] = account
    yield made
    await life.stop()
    assert life.failure is None


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, timeout=10) as made:
        yield made
