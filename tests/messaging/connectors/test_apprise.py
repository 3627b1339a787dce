"""Apprise by way of the platform: a channel of the tenant's own name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from caudal.core import db
from caudal.messaging.accounts import NewAccount
from tests.messaging.connectors.conftest import TENANT, Platform


@pytest.fixture
async def service() -> AsyncIterator[tuple[int, list[tuple[str, str]]]]:
    """A server that takes Apprise's JSON; its port, and the (path, text) it took."""
    taken: list[tuple[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        taken.append((head.split(" ")[1], json.loads(await reader.readexactly(size))["message"]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], taken
    server.close()


async def test_a_channel_of_ones_own(platform: Platform, service: Any) -> None:
    port, taken = service
    new = NewAccount(channel="email", provider_account="mail", url=f"json://127.0.0.1:{port}/to/{{address}}")
    async with db.tenant_transaction(platform.api.parts.pool, TENANT) as connection:
        made = await platform.accounts.add(connection, new)
    assert made.webhook_path is None
    await platform.worker("apprise")
    numbers = await platform.send("hello", "again", to="ana@example.com", channel="email")
    await platform.until(numbers, "sent")
    assert [text for _, text in taken] == ["hello", "again"]
    assert "ana" in taken[0][0]


async def test_a_url_that_is_none_is_the_operators(platform: Platform) -> None:
    new = NewAccount(channel="email", provider_account="mail", url="nonsense")
    async with db.tenant_transaction(platform.api.parts.pool, TENANT) as connection:
        await platform.accounts.add(connection, new)
    await platform.worker("apprise")
    await platform.send("hello", to="ana@example.com", channel="email")
    problem = await platform.query("select problem from caudal.channel_account")
    assert problem.startswith("The account's URL")
