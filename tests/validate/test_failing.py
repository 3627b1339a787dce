"""Checks of messaging, shown an API that breaks its promises: each must say so."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from caudal.app.validate.checks import accepting, delivery, files, idempotency, order, webhook
from caudal.app.validate.context import Context
from caudal.app.validate.ground import prepared
from caudal.app.validate.report import Finding
from caudal.app.validate.settings import Load, Target


class Liar:
    """An API that signs everybody in, takes everything, stores nothing, and refuses nobody."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/auth/token":
            return httpx.Response(200, json={"access_token": "x"})
        if path == "/v1/messages":
            return httpx.Response(202, json={"message_id": str(uuid4()), "status": "ACCEPTED"})
        if path.endswith("/messages"):
            # The latest first, and to everybody.
            shown = [{"content": str(n), "status": "SENT"} for n in range(3, 0, -1)]
            return httpx.Response(200, json={"messages": shown})
        if path.endswith("/read"):
            return httpx.Response(200, json={"read_at": next(self._numbers)})
        if path == "/api/connectors":
            return httpx.Response(201, json={"id": 1, "webhook_path": "/webhooks/whatsapp/1"})
        if path == "/v1/files":
            made = {"file_id": "1", "checksum": "sha256:0", "size_bytes": 1}
            return httpx.Response(201, json=made)
        return httpx.Response(200, content=b"other bytes")


Run = Callable[[Context, Finding], Awaitable[None]]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (accepting.run, ["not there", "before the commit", "blank message"]),
        (idempotency.run, ["Messages made by one key", "Another message with it"]),
        (order.run, ["What one of the two sees", "outside the conversation"]),
        (delivery.run, ["Time of reading", "Statuses as the sender sees them"]),
        (webhook.run, ["without the right signature", "handshake (403)", "Messages made of one event"]),
        (files.run, ["Checksum", "not what went up", "range", "stranger"]),
    ],
    ids=["accepting", "idempotency", "order", "delivery", "webhook", "files"],
)
async def test_an_api_that_lies_is_found_out(
    database_url: str, run: Run, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never comes need not be waited for as long as in production.
    monkeypatch.setattr("caudal.app.validate.context.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(Context.eventually, "__defaults__", (0.5,))
    monkeypatch.setattr(delivery, "ROUTED_SECONDS", 0.5)
    target = Target(database_url, "mqtt://127.0.0.1:1", "http://api", ())
    finding = Finding()
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(Liar())) as http,
        prepared(database_url, "probe") as ground,
    ):
        context = Context(target, Load(rate=100, seconds=0.5), ground, http)
        failure: Any = None
        try:
            await run(context, finding)
        except TimeoutError as error:
            failure = error  # a status that never comes
    text = "\n".join(finding.faults)
    assert [words for words in said if words not in text] == [], (text, failure)
