"""Apprise by way of the platform: a channel of the tenant's own name."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from caudal.core import db
from caudal.messaging import connectors
from caudal.messaging.accounts import NewAccount
from caudal.messaging.connectors.apprise import LARGEST
from caudal.messaging.provider import Attachment, Message, ProviderError, Secrets, Verdict
from tests.messaging.connectors.conftest import TENANT, Platform
from tests.messaging.connectors.test_behaviour import account, settings
from tests.messaging.connectors.test_media import Shelf


@pytest.fixture
async def service() -> AsyncIterator[tuple[int, list[tuple[str, Any]]]]:
    """A server that takes Apprise's JSON; its port, and the (path, body) it took."""
    taken: list[tuple[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        taken.append((head.split(" ")[1], json.loads(await reader.readexactly(size))))
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
    assert [body["message"] for _, body in taken] == ["hello", "again"]
    assert "ana" in taken[0][0]


async def test_a_url_that_is_none_is_the_operators(platform: Platform) -> None:
    new = NewAccount(channel="email", provider_account="mail", url="nonsense")
    async with db.tenant_transaction(platform.api.parts.pool, TENANT) as connection:
        await platform.accounts.add(connection, new)
    await platform.worker("apprise")
    await platform.send("hello", to="ana@example.com", channel="email")
    problem = await platform.query("select problem from caudal.channel_account")
    assert problem.startswith("The account's URL")


def sending(url: str, size: int = 7, kept: bool = True) -> Any:
    """One message with a file, by the account's URL."""
    shelf = Shelf(f=b"a cat \xff") if kept else None
    connector = connectors.make("apprise", settings("http://127.0.0.1:1"), shelf)
    to = account("email", Secrets(url=url), "mail")
    attachment = Attachment(
        tenant=TENANT, file_id="f", filename="cat.png", content_type="image/png; q=1", size=size
    )
    return connector.send(
        to, Message(reference="1.1", address="ana", contact=None, text="look", attachment=attachment)
    )


async def test_a_file_goes_along_where_the_service_can(service: Any) -> None:
    port, taken = service
    await sending(f"json://127.0.0.1:{port}/")
    ((_, body),) = taken
    (one,) = body["attachments"]
    assert (body["message"], one["filename"], one["mimetype"]) == ("look", "cat.png", "image/png")
    assert base64.b64decode(one["base64"]) == b"a cat \xff"


@pytest.mark.parametrize(
    ("url", "change", "code"),
    [
        (f"sns://AKIA000000000/{'a' * 40}/us-east-1/+15551234567", {}, "files"),
        ("json://127.0.0.1:1/", {"size": LARGEST + 1}, "size"),
        ("json://127.0.0.1:1/", {"kept": False}, "files"),
    ],
)
async def test_a_file_that_cannot_go_is_refused_before_anybody_is_asked(
    url: str, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        await sending(url, **change)
    assert (caught.value.verdict, caught.value.provider_code) == (Verdict.REFUSED, code)
