"""What a newcomer does first: `caudal up --demo`, `caudal chat`, a phone that is not there; on every log."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from caudal.sandbox.demo import WHATSAPP_ID
from tests.integration.connectors.test_chat import Chat, until
from tests.integration.up.conftest import Up

PHONE = "+5511999998888"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_a_message_there_its_answer_back_and_both_receipts(
    kind: str, up: Up, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "kafka":
        servers = request.getfixturevalue("kafka_broker").servers
        up.environ |= {"LOG": "kafka", "KAFKA_BOOTSTRAP_SERVERS": servers, "LOG_PARTITIONS": "2"}
    endpoints = await up.start("--demo")
    chat = Chat(endpoints["http_url"], tmp_path, "user_a", "pass_a")
    await chat("login")
    tail = await chat.start("tail", "--json")
    try:
        await until(tail, type="connected")
        sent = await chat("send", "orders", "hello", "--to", f"whatsapp:{PHONE}")
        await until(tail, type="status_update", message_id=sent, status="DELIVERED")
        async with httpx.AsyncClient(base_url=endpoints["sandbox_url"], trust_env=False) as phone:
            shown = (await phone.get(f"/control/phones/{PHONE}/messages")).json()
            assert [(entry["direction"], entry["text"]) for entry in shown][:1] == [("in", "hello")]
            await phone.post(f"/control/phones/{PHONE}/read", json={})
            await until(tail, type="status_update", message_id=sent, status="READ")
            reply = {"account": WHATSAPP_ID, "text": "and hello to you"}
            (await phone.post(f"/control/phones/{PHONE}/messages", json=reply)).raise_for_status()
        heard = await until(tail, type="new_message", content="and hello to you")
        assert (heard["conversation_id"], heard["sender_id"]) == ("orders", f"whatsapp:{PHONE}")
    finally:
        tail.kill()
        await tail.wait()
    status, _ = await up.stop()
    assert status == 0
