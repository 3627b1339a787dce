"""Sockets: frames as the contract has them, no gap, nobody else's, and no room for who does not read."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from caudal.app import realtime
from caudal.core.lifecycle import Lifecycle
from caudal.messaging.realtime import is_ping
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.registry.permissions import Action, Role
from caudal.registry.settings import PeopleSettings
from caudal.web.settings import WebSettings


def token(headers: Any) -> str:
    return str(headers["Authorization"].removeprefix("Bearer "))


@asynccontextmanager
async def socket(url: str, headers: Any, last_id: object = None) -> AsyncIterator[ClientConnection]:
    query = f"?token={quote(token(headers))}" + (f"&last_id={last_id}" if last_id is not None else "")
    address = f"{url.replace('http', 'ws', 1)}/notifications{query}"
    async with connect(address, proxy=None) as opened:
        yield opened


async def frame(opened: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        return dict(json.loads(await opened.recv()))


async def closed(opened: ClientConnection) -> int:
    """The code with which the other side closes; frames before it are passed over."""
    async with asyncio.timeout(30):
        try:
            while True:
                await opened.recv()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006


async def two(platform: Any, tenant: str = "default") -> tuple[str, Any, str, Any]:
    a, ha = await platform.api.person(tenant, Role.MEMBER)
    b, hb = await platform.api.person(tenant, Role.MEMBER)
    return str(a), ha, str(b), hb


@asynccontextmanager
async def gateway(platform: Any, **settings: Any) -> AsyncIterator[str]:
    """A gateway beside the API; its address."""
    life = Lifecycle()
    people = PeopleSettings(secret_key="x" * 40, rate_limit_address=0, principal_seconds=0)
    server = await realtime.gateway(
        life, platform.url, people, WebSettings(), RealtimeSettings(realtime_port=0, **settings)
    )
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await life.stop()


async def test_a_message_reaches_every_socket_of_its_people_and_its_status_the_sender(platform: Any) -> None:
    await platform.route()
    a, ha, b, hb = await two(platform)
    _, stranger = await platform.api.person("default", Role.OWNER)
    url = platform.api.url
    async with (
        gateway(platform) as other, socket(url, ha) as sa, socket(url, hb) as sb, socket(other, hb) as sb2,
        socket(other, stranger) as sx,
    ):  # fmt: skip
        for opened, user in ((sa, a), (sb, b), (sb2, b)):
            hello = await frame(opened)
            assert hello.pop("last_id") == 0
            assert isinstance(hello.pop("timestamp"), int)
            assert hello == {"type": "connected", "userId": user}
        await frame(sx)
        sent = await platform.send(ha, "c", "olá", recipient_id=b)
        for opened in (sb, sb2):
            note = await frame(opened)
            assert isinstance(note.pop("timestamp"), int)
            assert note == {
                "type": "new_message", "message_id": sent, "sender_id": a, "conversation_id": "c",
                "content": "olá", "id": 1,
            }  # fmt: skip
        # Shown twice, delivered once.
        status = await frame(sa)
        assert (status["type"], status["message_id"], status["status"]) == (
            "status_update",
            sent,
            "DELIVERED",
        )
        await platform.client.post(f"/v1/messages/{sent}/read", headers=hb)
        status = await frame(sa)
        assert (status["type"], status["message_id"], status["status"]) == ("status_update", sent, "READ")
        for text in ("ping", '{"type":"ping"}'):
            await sx.send(text)
            # Nothing else came to the stranger before it.
            assert (await frame(sx))["type"] == "pong"
        metrics = (await platform.client.get(f"{other}/actuator/prometheus")).text
        assert "websocket_connections_active 2.0" in metrics
        assert "notifications_sent_total 1.0" in metrics
        health = await platform.client.get(f"{other}/actuator/health")
        assert health.json()["status"] == "UP"
    text = (await platform.client.get("/actuator/prometheus")).text
    assert "websocket_connections_active 0.0" in text


async def test_members_of_a_group_hear_what_is_said_in_it(platform: Any) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    made = await platform.client.post(
        "/v1/groups", json={"name": "g", "initial_members": [b]}, headers=ha
    )  # fmt: skip
    async with socket(platform.api.url, hb) as sb, socket(platform.api.url, ha) as sa:
        await frame(sb)
        await frame(sa)
        sent = await platform.send(ha, "gc", "all", recipient_id=made.json()["group_id"])
        assert (await frame(sb))["message_id"] == sent
        # Who wrote it hears that it arrived, and not the message itself.
        status = await frame(sa)
        assert (status["type"], status["status"]) == ("status_update", "DELIVERED")
        await sa.send("ping")
        assert (await frame(sa))["type"] == "pong"


async def test_who_comes_back_misses_nothing_and_hears_nothing_twice(platform: Any) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    url = platform.api.url
    sent = [await platform.send(ha, "c", f"m{n}", recipient_id=b) for n in range(3)]
    await platform.routed(*sent)
    seen: list[str] = []
    last: object = 0
    # Comes and goes while messages keep coming; by number, and by a message's id.
    for turn in range(4):
        more = asyncio.create_task(_say(platform, ha, b, turn))
        async with socket(url, hb, last) as opened:
            assert (await frame(opened))["type"] == "connected"
            for _ in range(8):
                note = await frame(opened)
                seen.append(note["message_id"])
                last = note["id"] if turn % 2 else note["message_id"]
        sent += await more
    async with socket(url, hb, last) as opened:
        await frame(opened)
        while len(seen) < len(sent):
            seen.append((await frame(opened))["message_id"])
    assert seen == sent


async def _say(platform: Any, headers: Any, to: str, turn: int) -> list[str]:
    return [await platform.send(headers, "c", f"{turn}.{n}", recipient_id=to) for n in range(10)]


async def test_a_gap_is_said(platform: Any) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    sent = [await platform.send(ha, "c", f"m{n}", recipient_id=b) for n in range(3)]
    await platform.routed(*sent)
    await platform.until(
        lambda: platform.admin.fetchval("select count(*) = 3 from caudal.notification where user_id = $1", b)
    )
    await platform.admin.execute("delete from caudal.notification where id < 3")
    async with socket(platform.api.url, hb, 0) as opened:
        await frame(opened)
        assert await frame(opened) == {"type": "gap", "last_id": 0, "id": 3}
        assert (await frame(opened))["message_id"] == sent[2]


async def test_bad_tokens_are_closed_with_1008(platform: Any) -> None:
    a, ha, _, _ = await two(platform)
    url = platform.api.url
    keys = platform.api.parts.keys
    keys.token_seconds = -60
    expired = await keys.issue(await _id(platform, a), "default")
    keys.token_seconds = 3600
    elsewhere = await platform.api.tenant("elsewhere")
    assert elsewhere
    forged = await keys.issue(await _id(platform, a), "elsewhere")
    head, body, signature = token(ha).split(".")
    for bad in ("", "nonsense", expired, forged, f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}."):
        async with socket(url, {"Authorization": f"Bearer {bad}"}) as opened:
            assert await closed(opened) == 1008, bad
    async with socket(url, ha, "neither") as opened:
        assert await closed(opened) == 1008
    for odd in ("99999999999999999", "0"):
        async with socket(url, ha, odd) as opened:
            assert (await frame(opened))["last_id"] == 0


async def _id(platform: Any, user: str) -> Any:
    return await platform.admin.fetchval("select id from caudal.person where id = $1::uuid", user)


async def test_a_number_of_anothers_notification_opens_nothing(platform: Any) -> None:
    await platform.route()
    _, ha, b, _ = await two(platform)
    _, stranger = await platform.api.person("elsewhere", Role.OWNER)
    sent = await platform.send(ha, "c", "secret", recipient_id=b)
    await platform.routed(sent)
    for last in (0, sent):
        async with socket(platform.api.url, stranger, last) as opened:
            assert (await frame(opened))["type"] == "connected"
            await opened.send("ping")
            assert (await frame(opened))["type"] == "pong"


async def test_an_api_key_has_no_socket(platform: Any) -> None:
    headers = await platform.api.headers("default", Role.OWNER)
    made = await platform.client.post(
        "/api/keys", json={"name": "k", "scopes": [str(Action.MESSAGES_READ)]}, headers=headers
    )
    assert made.status_code == 201, made.text
    key = made.json().get("secret") or made.json()["key"]
    async with socket(platform.api.url, {"Authorization": f"Bearer {key}"}) as opened:
        assert await closed(opened) == 1008


async def test_a_token_that_no_longer_holds_ends_its_socket(platform: Any) -> None:
    a, ha, _, _ = await two(platform)
    async with gateway(platform, socket_check_seconds=0.1) as url, socket(url, ha) as opened:
        await frame(opened)
        await platform.admin.execute("delete from caudal.membership where person_id = $1::uuid", a)
        assert await closed(opened) == 1008


async def test_too_many_sockets_of_one_person_are_told_to_come_later(platform: Any) -> None:
    _, ha, _, _ = await two(platform)
    async with (
        gateway(platform, sockets_per_person=2) as url,
        socket(url, ha) as one,
        socket(url, ha) as two_,
    ):
        await frame(one)
        await frame(two_)
        async with socket(url, ha) as third:
            assert await closed(third) == 1013
        await one.close()

        async def again() -> bool:
            async with socket(url, ha) as fourth:
                try:
                    return (await frame(fourth))["type"] == "connected"
                except ConnectionClosed:
                    return False

        await platform.until(again)


async def test_our_own_fault_closes_with_1011(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    hub = platform.api.parts.services["hub"]
    async with socket(platform.api.url, hb) as opened:
        await frame(opened)
        monkeypatch.setattr("caudal.messaging.realtime.PATIENCE", 0.1)
        whole = hub._pool
        hub._pool = _Away()
        sent = await platform.send(ha, "c", "while it is away", recipient_id=b)
        assert await closed(opened) == 1011
        hub._pool = whole
    async with socket(platform.api.url, hb, 0) as opened:
        await frame(opened)
        assert (await frame(opened))["message_id"] == sent


class _Away:
    """A database that does not answer."""

    def acquire(self) -> Any:
        raise ConnectionRefusedError("away")

    async def fetch(self, *_: Any) -> Any:
        raise ConnectionRefusedError("away")


async def test_who_does_not_read_is_cut_off_and_misses_nothing(platform: Any) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    address = urlsplit(platform.api.url)
    # A client that shakes hands and then reads no more, with small buffers.
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (address.hostname, address.port))
    request = (
        f"GET /notifications?token={token(hb)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    hub = platform.api.parts.services["hub"]

    async def open_now() -> bool:
        return bool(hub._active == 1)

    await platform.until(open_now)
    count = 700
    for n in range(0, count, 50):
        await asyncio.gather(
            *(platform.send(ha, f"c{m}", "x" * 10_000, recipient_id=b) for m in range(n, n + 50))
        )

    async def gone() -> bool:
        return bool(hub._active == 0)

    await platform.until(gone, 30)
    raw.close()
    text = (await platform.client.get("/actuator/prometheus")).text
    assert 'websocket_closed_total{reason="slow"} 1.0' in text
    async with socket(platform.api.url, hb, 0) as opened:
        await frame(opened)
        ids = [(await frame(opened))["id"] for _ in range(count)]
    assert ids == list(range(1, count + 1))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("ping", True), (' {"type": "ping"} ', True), ("pong", False), ("[]", False), ("{", False), ("", False),
     ("[" * 65_536, False)],
)  # fmt: skip
def test_pings(text: str, is_one: bool) -> None:
    assert is_ping(text) is is_one
