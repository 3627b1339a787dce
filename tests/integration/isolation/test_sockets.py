"""Every socket, attacked from the tenant next door."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote
from uuid import UUID

from litestar.routes import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from caudal.messaging import notify
from caudal.messaging.notify import Note, Notifier

OURS, THEIRS = "ours", "zebra"
KNOWN = {"/notifications"}
LAST = (
    "0",
    "-1",
    "1",
    "999",
    "9" * 30,
    "",
    "' or true --",
    "1; drop table caudal.tenant",
    "a\x00b",
    "NaN",
    "*",
)


async def tell(world: Any, tenant: str, person: UUID, word: str) -> None:
    """A notification, as the router makes one."""
    number = await world.api.admin.fetchval("select id from caudal.tenant where name = $1", tenant)
    async with world.api.admin.acquire() as connection, connection.transaction():
        await notify.publish(connection, [Note(number, str(person), payload={"type": "note", "word": word})])
    notifier = Notifier(world.api.admin)
    notifier.announce([(number, str(person))])
    await notifier.stop()


async def heard(url: str, token: str, last_id: str | None, until: str) -> list[dict[str, Any]]:
    """Frames of a socket up to the one that holds `until`, or to its end."""
    query = f"?token={quote(token, safe='')}" + (
        "" if last_id is None else f"&last_id={quote(last_id, safe='')}"
    )
    frames: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(10),
        connect(f"{url.replace('http', 'ws', 1)}/notifications{query}", proxy=None) as s,
    ):
        try:
            while not any(until in str(frame) for frame in frames):
                frames.append(json.loads(await s.recv()))
        except ConnectionClosed as closed:
            frames.append({"closed": closed.rcvd.code if closed.rcvd else 0, "why": str(closed)})
    return frames


async def test_every_socket_is_known_here(world: Any) -> None:
    assert {r.path_format for r in world.api.app.routes if isinstance(r, WebSocketRoute)} == KNOWN


async def test_a_socket_shows_its_tenants_notifications_alone(world: Any) -> None:
    """Somebody who belongs to both tenants, and works in one."""
    person, headers = await world.api.person(OURS, "viewer", username="both")
    await world.api.admin.execute(
        "insert into caudal.membership select id, $1, 'viewer' from caudal.tenant where name = $2",
        person,
        THEIRS,
    )
    for number in range(3):
        await tell(world, THEIRS, person, f"{THEIRS} secret {number}")
    await tell(world, OURS, person, "ours, the last")
    token = headers["Authorization"].removeprefix("Bearer ")
    theirs = str(world.planted[THEIRS]["message_id"])
    for last_id in (*LAST, theirs, theirs.upper(), None):
        frames = await heard(world.api.url, token, last_id, "connected" if last_id in (None, "") else "last")
        assert THEIRS not in str(frames).replace(str(last_id), ""), last_id
    shown = await heard(world.api.url, token, "0", "ours, the last")
    assert [frame["word"] for frame in shown if frame["type"] == "note"] == ["ours, the last"]


async def test_nothing_but_a_persons_own_token_opens_a_socket(world: Any) -> None:
    key = world.keys[THEIRS]["X-API-Key"]
    for token in ("", "x.y.z", key, "' or true --", "a\x00b", str(world.people[THEIRS])):
        frames = await heard(world.api.url, token, "0", "no such word")
        assert frames[-1]["closed"] == 1008, token
        assert [frame for frame in frames if frame.get("type") == "note"] == []
