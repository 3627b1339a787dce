"""One behaviour suite that every connector passes, each against what stands in for its provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.messaging import connectors
from caudal.messaging.provider import (
    Account,
    Connector,
    ConnectorSettings,
    Message,
    ProviderError,
    Secrets,
    Verdict,
)
from caudal.sandbox import demo
from caudal.sandbox.model import Behaviour
from caudal.sandbox.server import Sandbox


class Stage:
    """A connector, an account, somebody to write to, and the provider's stand-in behind them."""

    def __init__(self, connector: Connector, account: Account, address: str, contact: str | None) -> None:
        self.connector = connector
        self.account = account
        self.address = address
        self.contact = contact
        self.arrived: Callable[[], list[str | None]] = list
        self.misbehave: Any = None

    def message(self, text: str = "hello") -> Message:
        return Message(reference="7.1", address=self.address, contact=self.contact, text=text)


def settings(base: str) -> ConnectorSettings:
    return ConnectorSettings(
        api_base=base, api_version="v23.0", connect_timeout=10, answer_timeout=1.5, concurrency=4
    )


def account(channel: str, secrets: Secrets, provider_account: str = "1") -> Account:
    return Account(
        id=1, tenant_id=1, tenant="acme", channel=channel, provider_account=provider_account, name="",
        secrets=secrets, per_second=80, media_per_second=80, pair_interval=0, pair_burst=1,
        window_seconds=None, template=None, human_agent=False, problem=None,
    )  # fmt: skip


async def graph_stage(name: str, life: Lifecycle, base: str | None) -> Stage:
    sandbox = Sandbox()
    await sandbox.start(life)
    demo.populate(sandbox.world)
    made = connectors.make(name, settings(base or sandbox.url))
    life.on_stop("connector", made.close)
    provided = next(a for a in sandbox.world.accounts.values() if a.channel == name)
    address = "+5511999998888" if name == "whatsapp" else "@someone"
    phone = sandbox.world.phone(provided.channel, address)
    stage = Stage(made, account(name, Secrets(token=provided.token), provided.id), address, phone.provider_id)

    def misbehave(kind: str) -> None:
        faults: dict[str, Any] = {
            "unavailable": Behaviour(fault="status", status=503),
            "silent": Behaviour(fault="silence"),
        }
        provided.behaviour = faults[kind]

    stage.misbehave = misbehave
    stage.arrived = lambda: [entry.text for entry in phone.messages]
    return stage


async def apprise_stage(life: Lifecycle, refused: bool) -> Stage:
    """Apprise's own JSON webhook, to a server that keeps what it gets."""
    taken: list[str] = []
    status = "200 OK"
    silent = asyncio.Event()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        if silent.is_set():
            await reader.read()
            return
        if status.startswith("200"):
            taken.append(body["message"])
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def stop() -> None:
        server.close()
        for writer in writers:
            writer.close()

    life.on_stop("service", stop)
    if refused:
        await stop()
    made = connectors.make("apprise", settings(""))
    url = f"json://127.0.0.1:{port}/{{address}}?cto=0.4&rto=0.4"
    stage = Stage(made, account("email", Secrets(url=url)), "ana@example.com", None)

    def misbehave(kind: str) -> None:
        nonlocal status
        if kind == "silent":
            silent.set()
        else:
            status = "503 Service Unavailable"

    stage.misbehave = misbehave
    stage.arrived = lambda: list(taken)
    return stage


async def make_stage(name: str, life: Lifecycle, *, unreachable: bool = False) -> Stage:
    if name == "apprise":
        return await apprise_stage(life, unreachable)
    return await graph_stage(name, life, "http://127.0.0.1:9" if unreachable else None)


@pytest.fixture
async def life() -> AsyncIterator[Lifecycle]:
    made = Lifecycle()
    yield made
    await made.stop()


every = pytest.mark.parametrize("name", connectors.names())


def test_the_siblings() -> None:
    assert connectors.names() == ["apprise", "instagram", "whatsapp"]


@every
async def test_it_sends(name: str, life: Lifecycle) -> None:
    stage = await make_stage(name, life)
    accepted = await stage.connector.send(stage.account, stage.message("olá ✓"))
    assert stage.arrived() == ["olá ✓"]
    assert bool(accepted.provider_id) == (name != "apprise")
    assert stage.connector.channel == name


@every
async def test_it_keeps_its_secrets(name: str, life: Lifecycle) -> None:
    stage = await make_stage(name, life)
    stage.account.secrets.token = "very-secret-token"
    shown = repr(stage.account) + str(stage.account.secrets)
    assert "very-secret-token" not in shown
    if name != "apprise":
        with pytest.raises(ProviderError) as caught:
            await stage.connector.send(stage.account, stage.message())
        assert caught.value.verdict is Verdict.OPERATOR
        assert "very-secret-token" not in repr(caught.value) + caught.value.sentence


@every
async def test_a_provider_that_cannot_be_reached_is_asked_again_later(name: str, life: Lifecycle) -> None:
    stage = await make_stage(name, life, unreachable=True)
    with pytest.raises(ProviderError) as caught:
        await stage.connector.send(stage.account, stage.message())
    assert caught.value.verdict is Verdict.RETRY


@every
async def test_a_provider_that_is_unavailable_is_asked_again_later(name: str, life: Lifecycle) -> None:
    stage = await make_stage(name, life)
    stage.misbehave("unavailable")
    with pytest.raises(ProviderError) as caught:
        await stage.connector.send(stage.account, stage.message())
    assert caught.value.verdict is Verdict.RETRY
    assert stage.arrived() == []


@pytest.mark.parametrize("name", ["whatsapp", "instagram"])
async def test_silence_is_not_failure(name: str, life: Lifecycle) -> None:
    stage = await make_stage(name, life)
    stage.misbehave("silent")
    with pytest.raises(ProviderError) as caught:
        await stage.connector.send(stage.account, stage.message())
    assert caught.value.verdict is Verdict.UNKNOWN
    assert stage.arrived() == ["hello"]


@every
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"object":"page"}', b"\xff"])
async def test_a_webhook_of_something_else_is_refused(name: str, body: bytes) -> None:
    made = connectors.make(name, settings("http://127.0.0.1:9"))
    try:
        with pytest.raises(ValueError):
            made.read_webhook(body)
    finally:
        await made.close()
