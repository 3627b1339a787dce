"""Traces of the whole platform: what a message and a reading leave at a collector."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx
import pytest

from tests.integration.up.conftest import Up
from tests.integration.up.test_up import publish
from tests.otlp import collector


@pytest.mark.slow
async def test_a_message_is_one_trace_and_a_batch_is_that_of_the_ledger(up: Up) -> None:
    with collector() as found:
        up.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = found.url
        up.environ["OTEL_BSP_SCHEDULE_DELAY"] = "200"
        endpoints = await up.start("--demo")
        async with httpx.AsyncClient(base_url=endpoints["http_url"], timeout=20) as client:
            signed = await client.post("/auth/token", json={"username": "user_a", "password": "pass_a"})
            headers = {
                "Authorization": f"Bearer {signed.json()['access_token']}",
                "x-request-id": "told-by-us",
            }
            secret = "what they wrote to each other"
            body = {"conversation_id": "t", "content": secret, "recipient_id": "whatsapp:+5511999998888"}
            sent = await client.post("/v1/messages", json=body, headers=headers)
            assert sent.status_code == 202, sent.text
        await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:00Z")
        spans = await asyncio.to_thread(
            found.wait, "accept", "route", "deliver", "ingest batch", "POST /v1/messages"
        )
        number = sent.json()["message_id"]
        ours = {span.name: span for span in spans if span.attributes.get("message_id") == number}
        assert ours.keys() == {"accept", "route", "deliver"}
        assert {span.trace_id for span in ours.values()} == {number.replace("-", "")}
        assert ours["route"].parent == ours["deliver"].parent == ours["accept"].span_id
        request = next(span for span in spans if span.attributes.get("request_id") == "told-by-us"
                       and span.name == "POST /v1/messages")  # fmt: skip
        assert ours["accept"].attributes["request_trace_id"] == request.trace_id
        assert secret not in str(spans)
        connection = await asyncpg.connect(endpoints["database_url"])
        try:
            written = {str(row["batch"]) for row in await connection.fetch("select batch from caudal.ledger")}
        finally:
            await connection.close()
        batches = [span for span in await asyncio.to_thread(found.wait, "ingest batch")
                   if span.name == "ingest batch"]  # fmt: skip
        assert written & {span.attributes["batch"] for span in batches}
        assert sum(span.attributes["stored"] for span in batches) > 0
        await up.stop()
