"""The messages endpoints, as the contract says."""

from __future__ import annotations

from typing import Any

from caudal.registry.permissions import Role


async def two(platform: Any, tenant: str = "default") -> tuple[Any, Any, Any, Any]:
    a, ha = await platform.api.person(tenant, Role.MEMBER)
    b, hb = await platform.api.person(tenant, Role.MEMBER)
    return str(a), ha, str(b), hb


async def test_a_message_is_accepted_routed_and_read(platform: Any) -> None:
    await platform.route()
    a, ha, b, hb = await two(platform)
    sent = await platform.send(ha, "c 1?ü", recipient_id=b, sender_id=a)
    await platform.routed(sent)
    page = await platform.client.get("/v1/conversations/c%201%3F%C3%BC/messages", headers=hb)
    assert page.status_code == 200, page.text
    body = page.json()
    assert body["conversation_id"] == "c 1?ü"
    assert body["pagination"] == {"limit": 50, "offset": 0, "returned": 1}
    message = body["messages"][0]
    assert message["message_id"] == sent
    assert (message["sender_id"], message["recipient_id"], message["status"]) == (a, b, "SENT")
    read = await platform.client.post(f"/v1/messages/{sent}/read", headers=hb)
    assert read.status_code == 200, read.text
    assert read.json()["status"] == "READ"
    again = await platform.client.post(f"/v1/messages/{sent}/read", headers=hb)
    assert again.json() == read.json()
    message = (await platform.client.get("/v1/conversations/c%201%3F%C3%BC/messages", headers=ha)).json()[
        "messages"
    ][0]
    assert message["status"] == "READ"
    assert message["read_at"] == read.json()["read_at"]
    lists = await platform.client.get("/v1/conversations", headers=hb)
    assert lists.json()["conversations"][0]["message_count"] == 1
    # The sender heard of it.
    rows = await platform.admin.fetch(
        "select user_id, payload, message_id from caudal.notification order by created_at"
    )
    assert [(row["user_id"], bool(row["message_id"])) for row in rows] == [(b, True), (a, False)]
    assert rows[1]["payload"]["status"] == "READ"
