"""The socket on which people hear what is new: it greets, answers, shows messages, turns strangers away."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Final

import msgspec
import websockets
from websockets.asyncio.client import connect

from caudal.app.validate.context import Context, percentiles
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 17
TITLE = "Socket"
COUNT = 10
FRAME_SECONDS = 10.0


async def run(context: Context, finding: Finding) -> None:
    other, headers = await context.signed_in("two")
    token = headers["Authorization"].removeprefix("Bearer ")
    url = context.target.http.replace("http", "ws", 1) + "/notifications?token="
    try:
        async with connect(url + token, open_timeout=10) as socket:
            await _hear(context, finding, socket, other)
    except websockets.InvalidStatus as error:
        if error.response.status_code in (403, 404):
            # A socket that is served opens, and closes with a code of its own.
            finding.absent("This API serves no socket at /notifications.")
            return
        raise OSError(f"the handshake was answered {error.response.status_code}") from None
    except websockets.WebSocketException as error:
        raise OSError(f"the socket failed: {error}") from None
    code: int | None = None
    try:
        async with connect(url + "wrong", open_timeout=10) as socket:
            await asyncio.wait_for(socket.recv(), FRAME_SECONDS)
    except websockets.ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else None
    finding.equal("Close code for a bad token", code, 1008)
    finding.sentence = (
        f"Greeted, ping answered, {COUNT} messages shown: p95 {finding.measured.get('shown_p95_ms')} ms from"
        " their 202; a bad token is turned away."
    )


async def _hear(context: Context, finding: Finding, socket: Any, other: str) -> None:
    async def frame(kind: str) -> dict[str, Any]:
        async with asyncio.timeout(FRAME_SECONDS):
            while True:
                found: dict[str, Any] = msgspec.json.decode(await socket.recv())
                if found.get("type") == kind:
                    return found

    finding.equal("Person greeted", (await frame("connected")).get("userId"), other)
    await socket.send("ping")
    await frame("pong")
    waits = []
    name = context.conversation("socket")
    for number in range(COUNT):
        body = {"conversation_id": name, "content": f"{number}", "recipient_id": other}
        answer = await context.call("POST", "/v1/messages", body)
        began = perf_counter()
        shown = await frame("new_message")
        waits.append(perf_counter() - began)
        finding.equal("Message shown", shown.get("message_id"), answer.json().get("message_id"))
    finding.measured |= percentiles(waits, "shown")
