"""Who writes to us out of the blue is listed, taken up by one, and then nobody else's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from caudal.messaging import inbound
from caudal.registry.permissions import Role

PHONE = "+5511999998888"
NAME = f"whatsapp:{PHONE}"
JOIN = f"/api/conversations/{NAME}/join"


async def written(platform: Any, *texts: str, tenant: str = "default") -> None:
    """Somebody writes to the tenant's number."""
    number = await platform.api.tenant(tenant)
    log = platform.services.get("event_log") or platform.api.parts.services["event_log"]
    async with platform.admin.acquire() as connection, connection.transaction():
        _, after = await inbound.receive(
            connection,
            log,
            [
                inbound.Inbound(number, "whatsapp", PHONE, f"{tenant} {text}", text, datetime.now(UTC))
                for text in texts
            ],
        )
    after()


async def unclaimed(platform: Any, headers: dict[str, str]) -> list[str]:
    answer = await platform.client.get("/api/conversations/unclaimed", headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["conversation_id"] for item in answer.json()["items"]]


async def test_one_takes_it_up_and_hears_what_waited(platform: Any) -> None:
    await platform.route()
    _, ha = await platform.api.person("default", Role.OPERATOR)
    _, hb = await platform.api.person("default", Role.OPERATOR)
    _, member = await platform.api.person("default", Role.MEMBER)
    _, theirs = await platform.api.person("others", Role.OWNER)
    await written(platform, "hello?", "anybody?")
    await platform.until(lambda: platform.admin.fetchval("select bool_and(waiting) from caudal.message"))
    assert await unclaimed(platform, ha) == [NAME]
    assert await unclaimed(platform, theirs) == []
    assert (await platform.client.get("/api/conversations/unclaimed", headers=member)).status_code == 403
    assert (await platform.client.post(JOIN, headers=member)).status_code == 403
    assert (await platform.client.post(JOIN, headers=theirs)).status_code == 404
    history = f"/v1/conversations/{NAME}/messages"
    assert (await platform.client.get(history, headers=ha)).status_code == 403

    # Of two at once, one.
    answers = await asyncio.gather(*(platform.client.post(JOIN, headers=h) for h in (ha, hb)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    first, second = (ha, hb) if answers[0].status_code == 200 else (hb, ha)
    again = await platform.client.post(JOIN, headers=first)
    assert (again.status_code, again.json()["message_count"]) == (200, 2)
    assert await unclaimed(platform, second) == []
    assert (await platform.client.get(history, headers=second)).status_code == 403
    found = (await platform.client.get(history, headers=first)).json()["messages"]
    assert [message["content"] for message in found] == ["hello?", "anybody?"]
    await platform.routed(*(message["message_id"] for message in found))
    inbox = [await platform.deliveries(message["message_id"]) for message in found]
    assert [[channel for channel, _ in one] for one in inbox] == [["app"], ["app"]]

    # And answers there.
    sent = await platform.send(first, NAME, "here")
    await platform.routed(sent)
    assert await platform.deliveries(sent) == {("whatsapp", PHONE): "pending"}


async def test_a_person_who_linked_their_number_waits_all_the_same(platform: Any) -> None:
    await platform.route()
    _, ha = await platform.api.person("default", Role.OPERATOR)
    _, hc = await platform.api.person("default", Role.MEMBER)
    link = {"platform": "whatsapp", "value": PHONE}
    assert (await platform.client.post("/v1/users/identities", json=link, headers=hc)).status_code == 201
    await written(platform, "hello?")
    await platform.until(lambda: platform.admin.fetchval("select bool_and(waiting) from caudal.message"))
    assert await unclaimed(platform, ha) == [NAME]
    assert (await platform.client.post(JOIN, headers=ha)).status_code == 200


async def test_what_people_begin_among_themselves_nobody_joins(platform: Any) -> None:
    await platform.route()
    _, ha = await platform.api.person("default", Role.OWNER)
    _, hb = await platform.api.person("default", Role.OWNER)
    # Waiting for somebody, and even named like an address.
    await platform.send(ha, "alone")
    await platform.send(ha, NAME)
    await platform.until(lambda: platform.admin.fetchval("select bool_and(waiting) from caudal.message"))
    assert await unclaimed(platform, hb) == []
    for name in ("alone", NAME, "nothing", "a%00b"):
        answer = await platform.client.post(f"/api/conversations/{name}/join", headers=hb)
        assert answer.status_code in (400, 404), answer.text
