"""Intent, outcome, waiting, expiry, sending again: what connectors rely on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec

from caudal.core.eventlog.port import Outgoing
from caudal.messaging import inbound, topics
from caudal.messaging.deliveries import Deliveries, Failed, Sent, Unknown, Verdict
from caudal.messaging.inbound import Inbound
from caudal.messaging.settings import MessagingSettings
from caudal.registry.permissions import Role

PHONE = "whatsapp:+5511999998888"


async def lane(platform: Any, count: int) -> tuple[Any, list[int], Deliveries]:
    """`count` messages to one phone in one conversation; their deliveries in order."""
    await platform.route()
    _, headers = await platform.api.person("default", Role.OWNER)
    sent = [await platform.send(headers, "c", str(n), recipient_id=PHONE) for n in range(count)]
    await platform.routed(*sent)
    rows = await platform.admin.fetch("select id from caudal.delivery order by id")
    # As a connector has it: not bound to a tenant, as the API's is.
    log, notifier = platform.services["event_log"], platform.services["notifier"]
    deliveries = Deliveries(platform.admin, log, notifier, MessagingSettings())
    return headers, [row["id"] for row in rows], deliveries


async def published(platform: Any) -> list[int]:
    """Delivery ids on the outbound topic, in order."""
    rows = await platform.admin.fetch(
        "select r.value from caudal.log_record r join caudal.log_topic t on t.id = r.topic_id"
        " where t.name = $1 order by r.partition, r.offset",
        topics.WHATSAPP_OUTBOUND,
    )
    return [msgspec.json.decode(row["value"])["delivery_id"] for row in rows]


async def test_an_intent_is_given_once(platform: Any) -> None:
    _, [number], deliveries = await lane(platform, 1)
    first = await deliveries.record_intent(number)
    assert (first.verdict, first.attempt) == (Verdict.CALL, 1)
    # Its worker died in the call, and the record comes again: whether it went out nobody knows.
    again = await deliveries.record_intent(number)
    assert again.verdict is Verdict.DONE
    assert await platform.admin.fetchval("select state from caudal.delivery") == "unknown"
    # The worker was only slow: its word still counts.
    await deliveries.settle(number, first.attempt, Sent("wamid.1"))
    assert await platform.admin.fetchval("select state from caudal.delivery") == "sent"
    assert (await deliveries.record_intent(number)).verdict is Verdict.DONE


async def test_later_messages_wait_in_their_place(platform: Any) -> None:
    _, numbers, deliveries = await lane(platform, 3)
    first = await deliveries.record_intent(numbers[0])
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await deliveries.defer(numbers[0], first.attempt, later, "down", "The channel is down.")
    for number in numbers[1:]:
        assert (await deliveries.record_intent(number)).verdict is Verdict.WAIT
    assert await deliveries.release_due(stuck=True) == 0
    await platform.admin.execute(
        "update caudal.delivery set next_attempt_at = now() where id = $1", numbers[0]
    )
    before = await published(platform)

    async def again() -> bool:
        return await published(platform) == before + numbers

    # The router's own look does it, all three in order.
    await platform.until(again)
    for number in numbers:
        intent = await deliveries.record_intent(number)
        assert intent.verdict is Verdict.CALL
        await deliveries.settle(number, intent.attempt, Sent(None))


async def test_a_settled_message_frees_those_behind_it(platform: Any) -> None:
    _, numbers, deliveries = await lane(platform, 3)
    first = await deliveries.record_intent(numbers[0])
    for number in numbers[1:]:
        assert (await deliveries.record_intent(number)).verdict is Verdict.WAIT
    before = await published(platform)
    await deliveries.settle(numbers[0], first.attempt, Unknown())
    assert await published(platform) == before + numbers[1:]


async def test_attempts_and_time_are_limited_and_failures_can_be_resent(platform: Any) -> None:
    headers, [one, two], _ = await lane(platform, 2)
    settings = MessagingSettings(delivery_max_attempts=2)
    log, notifier = platform.services["event_log"], platform.services["notifier"]
    deliveries = Deliveries(platform.admin, log, notifier, settings)
    for attempt in (1, 2):
        intent = await deliveries.record_intent(one)
        assert intent.attempt == attempt
        kept = await deliveries.defer(one, attempt, datetime.now(UTC), "busy", "Busy.")
        assert kept is (attempt == 1)
    await platform.admin.execute(
        "update caudal.delivery set expires_at = now() - interval '1 s' where id = $1", two
    )
    assert (await deliveries.record_intent(two)).verdict is Verdict.DONE
    answer = await platform.client.get("/api/deliveries", params={"state": "failed"}, headers=headers)
    shown = {item["delivery_id"]: item for item in answer.json()["items"]}
    assert shown[one]["reason"] == "Given up after 2 attempts. Busy."
    assert shown[two]["reason_code"] == "expired"
    history = await platform.client.get("/v1/conversations/c/messages", headers=headers)
    assert [m["status"] for m in history.json()["messages"]] == ["FAILED", "FAILED"]
    assert history.json()["messages"][0]["reason"]
    before = await published(platform)
    again = await platform.client.post(f"/api/deliveries/{two}/resend", headers=headers)
    assert again.status_code == 202, again.text
    assert again.json()["state"] == "pending"
    assert await published(platform) == [*before, two]
    assert (await platform.client.post(f"/api/deliveries/{two}/resend", headers=headers)).status_code == 409
    assert (await platform.client.post("/api/deliveries/999/resend", headers=headers)).status_code == 404
    intent = await deliveries.record_intent(two)
    assert intent.verdict is Verdict.CALL
    await deliveries.settle(two, intent.attempt, Failed("blocked", "They blocked us."))
    # Another tenant's operator sees none of it.
    stranger = await platform.api.headers("elsewhere", Role.OWNER)
    assert (await platform.client.get("/api/deliveries", headers=stranger)).json()["items"] == []
    assert (await platform.client.post(f"/api/deliveries/{two}/resend", headers=stranger)).status_code == 404


async def test_a_call_without_any_word_becomes_unknown(platform: Any) -> None:
    _, [number], deliveries = await lane(platform, 1)
    await deliveries.record_intent(number)
    assert await deliveries.expire() == 0
    await platform.admin.execute("update caudal.delivery set called_at = now() - interval '1 hour'")

    async def unknown() -> bool:
        return bool(await platform.admin.fetchval("select state = 'unknown' from caudal.delivery"))

    await platform.until(unknown)


async def test_a_status_from_elsewhere_is_applied_and_nonsense_is_buried(platform: Any) -> None:
    await lane(platform, 1)
    message = await platform.admin.fetchval("select message_id::text from caudal.delivery")
    log = platform.services["event_log"]
    status = {
        "message_id": message,
        "status": "DELIVERED",
        "timestamp": 1_700_000_000_000,
        "connector": "whatsapp",
    }
    # Well-formed, and nobody accepted it: whatever can write to the log makes no messages by that.
    stranger = topics.MessageRecord(
        message_id=str(uuid4()), conversation_id="c", sender_id="x", content="x", timestamp=1_700_000_000_000,
        event_type=topics.MESSAGE_SENT, tenant="default",
    )  # fmt: skip
    await log.publish(
        [
            Outgoing(topics.STATUS_UPDATES, message, msgspec.json.encode(status)),
            Outgoing(topics.STATUS_UPDATES, "x", b"{"),
            Outgoing(topics.STATUS_UPDATES, message, msgspec.json.encode({**status, "status": "READ"})),
            Outgoing(topics.MESSAGES, "c", b"not json"),
            Outgoing(topics.MESSAGES, "c", msgspec.json.encode(stranger)),
        ]
    )

    async def read() -> bool:
        buried = await platform.admin.fetchval("select count(*) from caudal.dead_letter")
        return buried == 3 and await platform.admin.fetchval("select status = 'READ' from caudal.message")

    await platform.until(read)
    reasons = await platform.admin.fetch("select topic, reason from caudal.dead_letter order by 1, 2")
    assert [tuple(row) for row in reasons] == [
        ("log:messages", "not_a_message"), ("log:messages", "unknown_message"),
        ("log:status-updates", "not_a_status"),
    ]  # fmt: skip


async def test_what_a_person_writes_joins_their_conversation(platform: Any) -> None:
    headers, _, _ = await lane(platform, 1)
    tenant = await platform.admin.fetchval("select id from caudal.tenant where name = 'default'")
    at = datetime.now(UTC).replace(microsecond=0)
    reply = Inbound(tenant, "whatsapp", "+5511999998888", "wamid.in", "a reply", at)
    stranger = Inbound(tenant, "whatsapp", "+5511900000000", "wamid.x", "who are you", at)
    log = platform.services["event_log"]
    for turn in range(2):
        async with platform.admin.acquire() as connection, connection.transaction():
            ids, after = await inbound.receive(connection, log, [reply, stranger])
        after()
        assert [number is None for number in ids] == [turn == 1] * 2
        if turn == 0:
            first = str(ids[0])
    await platform.routed(first)
    page = (await platform.client.get("/v1/conversations/c/messages", headers=headers)).json()["messages"]
    assert [(m["sender_id"], m["content"]) for m in page[1:]] == [(PHONE, "a reply")]
    assert page[1]["timestamp"] == int(at.timestamp() * 1000)
    waiting = await platform.admin.fetchrow(
        "select c.name, m.content from caudal.message m"
        " join caudal.conversation c on c.id = m.conversation_id where m.sender = 'whatsapp:+5511900000000'"
    )
    assert tuple(waiting) == ("whatsapp:+5511900000000", "who are you")
