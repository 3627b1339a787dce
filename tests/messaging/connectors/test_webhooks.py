"""Webhooks in, over the real API: who may, what is kept, what becomes of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any
from uuid import uuid4

import msgspec

from caudal.sandbox.model import Behaviour
from tests.commits import commits_held
from tests.messaging.connectors.conftest import PHONE, TENANT, Platform, provided_whatsapp

SECRET = "sandbox-whatsapp-secret"


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def inbound(contact: str = "5511999998888", text: str = "oi", account: str = "106540352242922") -> bytes:
    message = {"from": contact, "id": f"wamid.{uuid4().hex}", "timestamp": "1790000000", "type": "text",
               "text": {"body": text}}  # fmt: skip
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": account},
             "contacts": [{"profile": {"name": "Ana"}, "wa_id": contact}], "messages": [message]}  # fmt: skip
    entry = [{"id": "0", "changes": [{"field": "messages", "value": value}]}]
    return msgspec.json.encode({"object": "whatsapp_business_account", "entry": entry})


async def ready(platform: Platform) -> str:
    made = await platform.account(provided_whatsapp())
    await platform.worker("whatsapp")
    assert made.webhook_path
    return made.webhook_path


async def messages(platform: Platform, count: int) -> list[Any]:
    await platform.query("select count(*) from caudal.message", until=lambda n: n >= count)
    return await platform.pool.fetch(
        "select m.*, c.name as conversation from caudal.message m"
        " join caudal.conversation c on c.id = m.conversation_id order by m.conversation_id, m.place"
    )


async def test_the_handshake(platform: Platform) -> None:
    path = await ready(platform)
    answer = await platform.control.post("/control/accounts/106540352242922/verify")
    assert answer.json() == {"verified": True}
    query = {"hub.mode": "subscribe", "hub.verify_token": "wrong", "hub.challenge": "1"}
    assert (await platform.api.client.get(path, params=query)).status_code == 403
    query["hub.verify_token"] = "sandbox-whatsapp-verify"
    good = await platform.api.client.get(path, params=query)
    assert (good.status_code, good.text) == (200, "1")
    assert (await platform.api.client.get(path)).status_code == 403


async def test_only_the_providers_signature_counts(platform: Platform) -> None:
    path = await ready(platform)
    body = inbound()
    wrong = [{}, {"x-hub-signature-256": "sha256="}, {"x-hub-signature-256": "sha1=abc"}, signed(b"other"),
             signed(body, "wrong")]  # fmt: skip
    for headers in wrong:
        answer = await platform.api.client.post(path, content=body, headers=headers)
        assert answer.status_code == 401
    assert await platform.pool.fetchval("select count(*) from caudal.log_record") == 0


async def test_a_webhook_is_answered_after_its_commit(platform: Platform) -> None:
    """A provider forgets what was answered with 200."""
    path = await ready(platform)
    body = inbound()
    async with commits_held(platform.pool, "caudal.log_record") as reached:
        asked = asyncio.create_task(
            platform.api.client.post(path, content=body, headers=signed(body)), name="asked"
        )
        await reached()
        done, _ = await asyncio.wait([asked], timeout=0.3)
        assert not done
    assert (await asked).status_code == 200
    assert [row["content"] for row in await messages(platform, 1)] == ["oi"]


async def test_brackets_in_brackets_are_kept_as_what_nobody_understands(platform: Platform) -> None:
    path = await ready(platform)
    body = b"[" * 100_000
    answer = await platform.api.client.post(path, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"events": 1})
    assert await platform.query("select reason from caudal.dead_letter") == "unreadable"


async def test_an_unknown_hook_is_not_there(platform: Platform) -> None:
    await ready(platform)
    body = inbound()
    path = f"/webhooks/whatsapp/{uuid4()}"
    answer = await platform.api.client.post(path, content=body, headers=signed(body))
    assert answer.status_code == 404
    hook = (await ready_path(platform)).replace("whatsapp", "instagram")
    assert (await platform.api.client.post(hook, content=body, headers=signed(body))).status_code == 404


async def ready_path(platform: Platform) -> str:
    hook = await platform.pool.fetchval("select hook from caudal.channel_account")
    return f"/webhooks/whatsapp/{hook}"


async def test_what_a_person_writes_begins_a_conversation_once(platform: Platform) -> None:
    path = await ready(platform)
    body = inbound(text="first")
    for _ in range(3):
        answer = await platform.api.client.post(path, content=body, headers=signed(body))
        assert (answer.status_code, answer.json()) == (200, {"events": 1})
    again = inbound(text="second")
    await platform.api.client.post(path, content=again, headers=signed(again))
    found = await messages(platform, 2)
    assert [row["content"] for row in found] == ["first", "second"]
    assert {row["sender"] for row in found} == {f"whatsapp:{PHONE}"}
    assert len({row["conversation"] for row in found}) == 1
    contact = await platform.pool.fetchrow("select * from caudal.channel_contact")
    assert (contact["address"], contact["contact"], contact["name"]) == (PHONE, "5511999998888", "Ana")
    assert contact["wrote_at"].timestamp() == 1790000000


async def test_a_reply_goes_where_the_person_was_written_to(platform: Platform) -> None:
    await ready(platform)
    await platform.control.put(f"/control/phones/{PHONE}", json={"replies": "got {text}"})
    numbers = await platform.send("hello", conversation="orders")
    await platform.until(numbers, "delivered")
    found = await messages(platform, 2)
    assert [(row["conversation"], row["content"]) for row in found] == [
        ("orders", "hello"),
        ("orders", "got hello"),
    ]


async def test_a_number_that_the_provider_writes_otherwise_is_the_same_person(platform: Platform) -> None:
    path = await ready(platform)
    made = await platform.pool.fetchval("select id from caudal.channel_account")
    # Brazil's ninth digit: we write it, the provider's id of the person lacks it.
    await platform.pool.execute(
        "insert into caudal.channel_contact(tenant_id, account_id, address, contact) values ($1, $2, $3, $4)",
        platform.tenant_id, made, "+5516992318222", "551692318222",
    )  # fmt: skip
    body = inbound("551692318222")
    await platform.api.client.post(path, content=body, headers=signed(body))
    (row,) = await messages(platform, 1)
    assert row["sender"] == "whatsapp:+5516992318222"


async def test_a_linked_identity_is_the_sender_and_proven(platform: Platform) -> None:
    path = await ready(platform)
    user = uuid4()
    await platform.pool.execute(
        "insert into caudal.identity(tenant_id, platform, value, user_id) values ($1, 'whatsapp', $2, $3)",
        platform.tenant_id, PHONE, str(user),
    )  # fmt: skip
    body = inbound()
    await platform.api.client.post(path, content=body, headers=signed(body))
    (row,) = await messages(platform, 1)
    assert row["sender"] == str(user)
    assert await platform.pool.fetchval("select verified from caudal.identity")


async def test_what_nobody_can_place_is_kept_with_the_dead_letters(platform: Platform) -> None:
    path = await ready(platform)
    strange = {
        inbound(account="999"): "unknown_account",
        b'{"object":"page"}': "unreadable",
        b"\xff\xfe": "unreadable",
        b"": "unreadable",
        inbound().replace(b'"type":"text"', b'"type":7'): "unreadable",
    }
    for body in strange:
        answer = await platform.api.client.post(path, content=body, headers=signed(body))
        assert answer.status_code == 200
    await platform.query("select count(*) from caudal.dead_letter", until=lambda n: n == len(strange))
    found = await platform.pool.fetch("select reason, tenant_name from caudal.dead_letter")
    assert sorted(row["reason"] for row in found) == sorted(strange.values())
    assert {row["tenant_name"] for row in found} == {TENANT}


async def test_kinds_without_text_are_noted(platform: Platform) -> None:
    path = await ready(platform)
    place = b'"type":"location","location":{"latitude":-23.5,"longitude":-46.6}'
    body = inbound(text="x").replace(b'"type":"text","text":{"body":"x"}', place)
    await platform.api.client.post(path, content=body, headers=signed(body))
    picture = b'"type":"image","image":{"id":"77","mime_type":"image/jpeg","caption":"my cat"}'
    body = inbound(text="x").replace(b'"type":"text","text":{"body":"x"}', picture)
    await platform.api.client.post(path, content=body, headers=signed(body))
    found = await messages(platform, 2)
    assert [row["content"] for row in found] == ["[location] -23.5, -46.6", "[image/jpeg] my cat"]


async def test_webhooks_that_were_lost_or_doubled_do_no_harm(platform: Platform) -> None:
    await ready(platform)
    provided = platform.sandbox.world.accounts["106540352242922"]
    provided.behaviour = Behaviour(lose=2, duplicates=3)
    for text in ("a", "b"):
        written = {"account": provided.id, "text": text}
        await platform.control.post(f"/control/phones/{PHONE}/messages", json=written)
    await platform.query(
        "select count(*) from caudal.log_group g join caudal.log_topic t on t.id = g.topic_id"
        " where t.name = 'whatsapp-webhooks' having sum(committed) = 8"
    )
    found = await messages(platform, 2)
    assert sorted(row["content"] for row in found) == ["a", "b"]


async def test_accounts_over_http_keep_their_secrets(platform: Platform) -> None:
    headers = await platform.api.headers(TENANT)
    new = {"channel": "whatsapp", "provider_account": "5", "token": "very-secret", "app_secret": "too-secret",
           "verify_token": "and-this"}  # fmt: skip
    made = await platform.api.client.post("/api/connectors", json=new, headers=headers)
    assert made.status_code == 201, made.text
    assert "secret" not in made.text.replace("secrets", "")
    again = await platform.api.client.post("/api/connectors", json=new, headers=headers)
    assert again.status_code == 409
    number = made.json()["id"]
    listed = (await platform.api.client.get("/api/connectors", headers=headers)).json()
    assert [row["per_second"] for row in listed] == [80]
    other = await platform.api.headers("other")
    path = f"/api/connectors/{number}"
    assert (await platform.api.client.get("/api/connectors", headers=other)).json() == []
    assert (await platform.api.client.patch(path, json={"name": "x"}, headers=other)).status_code == 404
    assert (await platform.api.client.delete(path, headers=other)).status_code == 404
    changed = await platform.api.client.patch(path, json={"enabled": False}, headers=headers)
    assert changed.json()["enabled"] is False
    assert (await platform.api.client.delete(path, headers=headers)).status_code == 204
    actions = await platform.pool.fetch("select action, detail::text from caudal.audit order by id")
    assert [row["action"] for row in actions][-3:] == [
        "connector.added", "connector.changed", "connector.removed",
    ]  # fmt: skip
    assert "very-secret" not in str(actions)
