"""The messages endpoints, as the contract says."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

from caudal.registry.permissions import Role


async def two(platform: Any, tenant: str = "default") -> tuple[str, Any, str, Any]:
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
    # Whoever was shown it has it; who wrote it sees that, and is not taken for a reader by looking.
    for _ in range(2):
        page = await platform.client.get("/v1/conversations/c%201%3F%C3%BC/messages", headers=ha)
        message = page.json()["messages"][0]
        assert message["status"] == "DELIVERED"
        assert message["delivered_at"] >= message["timestamp"]
    read = await platform.client.post(f"/v1/messages/{sent}/read", headers=hb)
    assert read.status_code == 200, read.text
    assert read.json()["status"] == "READ"
    again = await platform.client.post(f"/v1/messages/{sent}/read", headers=hb)
    assert again.json() == read.json()
    page = await platform.client.get("/v1/conversations/c%201%3F%C3%BC/messages", headers=ha)
    message = page.json()["messages"][0]
    assert message["status"] == "READ"
    assert message["read_at"] == read.json()["read_at"]
    lists = await platform.client.get("/v1/conversations", headers=hb)
    assert lists.json()["conversations"][0]["message_count"] == 1
    # The sender heard of it.
    rows = await platform.admin.fetch(
        "select user_id, payload, message_id from caudal.notification order by created_at"
    )
    assert [(row["user_id"], bool(row["message_id"])) for row in rows] == [
        (b, True),
        (a, False),
        (a, False),
    ]
    assert [row["payload"]["status"] for row in rows[1:]] == ["DELIVERED", "READ"]


# Each with its status.
WRONG: list[tuple[dict[str, Any], int]] = [
    ({"content": ""}, 400), ({"content": " \n\t"}, 400), ({"content": "é" * 5121}, 413),
    ({"content": "x" * 10241}, 413), ({"content": "a\0b"}, 400), ({"content": None}, 400),
    ({"conversation_id": ""}, 400), ({"conversation_id": "a/b"}, 400), ({"conversation_id": "x" * 256}, 400),
    ({"recipient_id": "whatsapp:5511"}, 400), ({"recipient_id": "whatsapp:+0511999998888"}, 400),
    ({"recipient_id": "instagram:someone"}, 400), ({"recipient_id": "group_1"}, 400),
    ({"recipient_id": "app:x"}, 400), ({"recipient_id": "key:x"}, 400), ({"recipient_id": "no one"}, 400),
    ({"recipient_id": str(uuid4())}, 400), ({"recipient_id": "nobody_here"}, 400),
    ({"recipient_id": f"group_{uuid4()}"}, 403), ({"sender_id": str(uuid4())}, 403),
    ({"file_id": str(uuid4())}, 400), ({"file_id": "x"}, 400),
]  # fmt: skip


async def test_what_is_wrong_is_refused_and_leaves_no_trace(platform: Any) -> None:
    a, ha, _, _ = await two(platform)
    for change, status in [*WRONG, ({"recipient_id": a}, 400)]:
        body = {"conversation_id": "c", "content": "hello", **change}
        answer = await platform.client.post("/v1/messages", json=body, headers=ha)
        assert answer.status_code == status, (change, answer.text)
        assert answer.json()["error"]
    for table in ("message", "conversation", "log_record"):
        assert await platform.admin.fetchval(f"select count(*) from caudal.{table}") == 0, table
    for content in ("x", "é" * 5120, "x" * 10240):
        await platform.send(ha, "c", content, recipient_id="whatsapp:+5511999998888")


async def test_without_a_token_nothing_is_accepted(platform: Any) -> None:
    answer = await platform.client.post("/v1/messages", json={"conversation_id": "c", "content": "x"})
    assert answer.status_code == 401


async def test_a_key_makes_a_retry_the_same_message(platform: Any) -> None:
    _, ha, b, hb = await two(platform)
    same = await asyncio.gather(*(platform.send(ha, "c", recipient_id=b, key="k1") for _ in range(20)))
    assert len(set(same)) == 1
    assert await platform.send(ha, "c", recipient_id=b, key="k1") == same[0]
    assert await platform.admin.fetchval("select count(*) from caudal.message") == 1
    assert await platform.admin.fetchval("select count(*) from caudal.log_record") == 1
    other = await platform.client.post(
        "/v1/messages",
        json={"conversation_id": "c", "content": "another"},
        headers={**ha, "Idempotency-Key": "k1"},
    )
    assert other.status_code == 400
    # Somebody else's key is another key.
    assert await platform.send(hb, "c", key="k1") != same[0]


async def test_a_conversation_belongs_to_those_in_it(platform: Any) -> None:
    await platform.route()
    a, ha, b, hb = await two(platform)
    _, hc = await platform.api.person("default", Role.OWNER)
    sent = await platform.send(ha, "mine", recipient_id=b)
    await platform.routed(sent)
    for answer in (
        await platform.client.get("/v1/conversations/mine/messages", headers=hc),
        await platform.client.get("/v1/conversations/none/messages", headers=hc),
        await platform.client.post(
            "/v1/messages", json={"conversation_id": "mine", "content": "x"}, headers=hc
        ),
        await platform.client.post(f"/v1/messages/{sent}/read", headers=hc),
        await platform.client.post(f"/v1/messages/{sent}/read", headers=ha),
        await platform.client.get(f"/v1/messages/{sent}/deliveries", headers=hc),
    ):
        assert answer.status_code == 403, answer.text
    assert (await platform.client.get("/v1/conversations", headers=hc)).json() == {"conversations": []}
    # In another tenant the same id is another conversation, and the message does not exist.
    _, hx, y, _ = await two(platform, "elsewhere")
    await platform.send(hx, "mine", recipient_id=y)
    assert (await platform.client.post(f"/v1/messages/{sent}/read", headers=hx)).status_code == 404
    page = (await platform.client.get("/v1/conversations/mine/messages", headers=hx)).json()
    assert [m["recipient_id"] for m in page["messages"]] == [y]
    refused = await platform.client.post(
        "/v1/messages", json={"conversation_id": "new", "content": "x", "recipient_id": a}, headers=hx
    )
    assert refused.status_code == 400
    # Who is written to takes part.
    await platform.send(hb, "mine", "an answer")


async def test_of_two_who_begin_a_conversation_at_once_one_does(platform: Any) -> None:
    people = [await platform.api.person("default", Role.MEMBER) for _ in range(6)]
    answers = await asyncio.gather(
        *(
            platform.client.post(
                "/v1/messages", json={"conversation_id": "race", "content": "x"}, headers=headers
            )
            for _, headers in people
        )
    )
    assert sorted(answer.status_code for answer in answers) == [202, 403, 403, 403, 403, 403]


async def test_messages_wait_for_who_joins(platform: Any) -> None:
    await platform.route()
    _, ha, b, hb = await two(platform)
    early = [await platform.send(ha, "c", f"early {n}") for n in range(3)]
    await platform.until(
        lambda: platform.admin.fetchval("select count(*) = 3 from caudal.message where waiting")
    )
    late = await platform.send(ha, "c", "come in", recipient_id=b)
    await platform.routed(*early, late)
    assert await platform.deliveries(early[0]) == {("app", b): "sent"}
    page = (await platform.client.get("/v1/conversations/c/messages", headers=hb)).json()
    assert [m["content"] for m in page["messages"]] == ["early 0", "early 1", "early 2", "come in"]
    heard = await platform.admin.fetch(
        "select message_id from caudal.notification where user_id = $1 order by id", b
    )
    assert [str(row[0]) for row in heard] == [*early, late]


async def test_history_pages_in_order(platform: Any) -> None:
    _, ha, b, _ = await two(platform)
    sent = [await platform.send(ha, "c", str(n), recipient_id=b) for n in range(7)]

    async def page(**query: Any) -> list[str]:
        answer = await platform.client.get("/v1/conversations/c/messages", headers=ha, params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["pagination"]["returned"] == len(answer.json()["messages"])
        return [m["message_id"] for m in answer.json()["messages"]]

    assert await page() == sent
    assert await page(limit=3) == sent[:3]
    assert await page(limit=3, offset=5) == sent[5:]
    assert await page(limit=3, offset=5, order="desc") == sent[1::-1]
    assert await page(offset=100) == []
    for query in ({"limit": 101}, {"limit": 0}, {"offset": -1}, {"limit": "x"}):
        answer = await platform.client.get("/v1/conversations/c/messages", headers=ha, params=query)
        assert answer.status_code == 400


async def test_one_delivery_for_each_channel_of_each_person(platform: Any) -> None:
    await platform.route()
    a, ha, b, hb = await two(platform)
    c, hc = await platform.api.person("default", Role.MEMBER)
    for headers, platform_name, value in (
        (ha, "whatsapp", "+5511900000001"), (hb, "whatsapp", "+5511900000002"), (hb, "instagram", "@bea"),
    ):  # fmt: skip
        linked = await platform.client.post(
            "/v1/users/identities", json={"platform": platform_name, "value": value}, headers=headers
        )
        assert linked.status_code == 201, linked.text
        assert linked.json()["verified"] is False
    made = await platform.client.post(
        "/v1/groups", json={"name": "g", "initial_members": [b, str(c)]}, headers=ha
    )
    group = made.json()["group_id"]
    sent = await platform.send(ha, "c", recipient_id=group)
    await platform.routed(sent)
    assert await platform.deliveries(sent) == {
        ("app", b): "sent", ("app", str(c)): "sent",
        ("whatsapp", "+5511900000002"): "pending", ("instagram", "@bea"): "pending",
    }  # fmt: skip
    # Without a recipient, to the others in the conversation; the writer's own number is left alone.
    answer = await platform.send(hb, "c", "from b")
    await platform.routed(answer)
    assert await platform.deliveries(answer) == {
        ("app", a): "sent", ("app", str(c)): "sent", ("whatsapp", "+5511900000001"): "pending",
    }  # fmt: skip
    shown = (await platform.client.get(f"/v1/messages/{sent}/deliveries", headers=hc)).json()["deliveries"]
    assert len(shown) == 4
    # By username, too; and out of the group, out of the conversation.
    gone = await platform.client.delete(f"/v1/groups/{group}/members/{c}", headers=ha)
    assert gone.status_code == 200
    assert (await platform.client.get("/v1/conversations/c/messages", headers=hc)).status_code == 403


async def test_outbound_records_are_the_contracts(platform: Any) -> None:
    import msgspec

    await platform.route()
    a, ha, _, _ = await two(platform)
    sent = await platform.send(ha, "c", "hello", recipient_id="whatsapp:+5511999998888")
    await platform.routed(sent)
    rows = await platform.admin.fetch(
        "select t.name, r.key, r.value from caudal.log_record r join caudal.log_topic t on t.id = r.topic_id"
        " order by r.published"
    )
    assert [(row["name"], row["key"]) for row in rows] == [("messages", "c"), ("whatsapp-outbound", "c")]
    for row in rows:
        value = msgspec.json.decode(row["value"])
        assert {k: value[k] for k in ("message_id", "conversation_id", "sender_id", "recipient_id", "content",
                                      "event_type")} == {
            "message_id": sent, "conversation_id": "c", "sender_id": a,
            "recipient_id": "whatsapp:+5511999998888", "content": "hello", "event_type": "MESSAGE_SENT",
        }  # fmt: skip
        assert isinstance(value["timestamp"], int)
    assert value["address"] == "+5511999998888"


async def test_an_application_sends_and_receives_with_a_key(platform: Any) -> None:
    await platform.route()
    owner, headers = await platform.api.person("default", Role.OWNER)
    made = await platform.client.post(
        "/api/keys", json={"name": "app", "scopes": ["messages:send", "messages:read"]}, headers=headers
    )
    assert made.status_code == 201, made.text
    key = {"Authorization": f"Bearer {made.json()['key']}"}
    sent = await platform.send(key, "c", recipient_id=str(owner))
    await platform.routed(sent)
    answer = await platform.send(headers, "c", "an answer")
    await platform.routed(answer)
    page = (await platform.client.get("/v1/conversations/c/messages", headers=key)).json()
    assert [m["message_id"] for m in page["messages"]] == [sent, answer]
    assert page["messages"][0]["sender_id"].startswith("key:")
    assert all(UUID(m["message_id"]).version == 7 for m in page["messages"])
