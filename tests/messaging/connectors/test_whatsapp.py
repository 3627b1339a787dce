"""WhatsApp against the sandbox: what goes out, what comes back, and what happens when it does not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from caudal.messaging.accounts import AccountChange
from caudal.messaging.provider import Template
from caudal.sandbox.model import Behaviour
from tests.messaging.connectors.conftest import PHONE, TENANT, Platform, provided_whatsapp

OTHER = "+5511999997777"


def value(metrics: Any, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0


async def test_a_message_goes_out_and_its_receipts_come_back(platform: Platform) -> None:
    await platform.account(provided_whatsapp())
    metrics = await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "delivered")
    row = await platform.delivery(number)
    assert row["provider_id"].startswith("wamid.")
    assert row["account"] == "106540352242922"
    assert row["attempt"] == 1
    assert await platform.shown() == ["hello"]
    await platform.control.post(f"/control/phones/{PHONE}/read", json={})
    await platform.until([number], "read")
    assert value(metrics, "messages_sent_total", channel="whatsapp", status="sent") == 1
    assert value(metrics, "connector_api_duration_seconds_count", channel="whatsapp") == 1


async def test_a_conversation_stays_in_order_through_failures(platform: Platform) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.behaviour = Behaviour(fault="error", code=131000, rate=0.5)
    await platform.worker("whatsapp", breaker_failures=1000, connector_retry_most=0.05)
    texts = [f"{n}" for n in range(12)]
    numbers = await platform.send(*texts)
    other = await platform.send(*texts, to=OTHER, conversation="c2")
    await platform.until([*numbers, *other], "delivered", "failed", seconds=30)
    kept = [await platform.delivery(number) for number in numbers]
    assert await platform.shown() == [t for t, d in zip(texts, kept, strict=True) if d["state"] != "failed"]
    assert any(row["attempt"] > 1 for row in kept)
    for row in kept:
        if row["state"] == "failed":
            assert row["attempt"] == 4
            assert row["reason"].startswith("Given up after 4 attempts.")


async def test_a_slow_person_holds_up_nobody_else(platform: Platform) -> None:
    await platform.account(provided_whatsapp())
    phone = {"behaviour": {"fault": "error", "code": 131056, "times": 1}}
    await platform.control.put(f"/control/phones/{PHONE}", json=phone)
    await platform.worker("whatsapp")
    held = await platform.send("first", "second")
    free = await platform.send("free", to=OTHER, conversation="c2")
    await platform.until(free, "delivered")
    assert await platform.shown() == []
    await platform.until(held, "delivered")
    assert await platform.shown() == ["first", "second"]


@pytest.mark.parametrize("fault", ["silence", "hangup"])
async def test_unanswered_is_unknown_and_settled_by_its_receipt(platform: Platform, fault: Any) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    # Webhooks wait until the call is known to have no answer.
    provided.behaviour = Behaviour(fault=fault, times=1, receipt_delay_ms=4000)
    metrics = await platform.worker("whatsapp", breaker_failures=100)
    first, second = await platform.send("once", "after it")
    await platform.until([first], "unknown")
    await platform.until([first, second], "delivered")
    assert await platform.shown() == ["once", "after it"]
    assert value(metrics, "messages_sent_total", channel="whatsapp", status="unknown") == 1
    assert (await platform.delivery(first))["provider_id"].startswith("wamid.")


async def test_what_was_not_accepted_and_not_answered_is_never_sent_again(platform: Platform) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.behaviour = Behaviour(fault="deaf", times=1)
    await platform.worker("whatsapp", breaker_failures=100)
    first, second = await platform.send("lost", "next")
    await platform.until([second], "delivered")
    row = await platform.delivery(first)
    assert (row["state"], row["attempt"]) == ("unknown", 1)
    assert await platform.shown() == ["next"]


async def test_receipts_in_any_order_and_number(platform: Platform) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.behaviour = Behaviour(shuffle=True, duplicates=2, lose=1)
    await platform.control.put(f"/control/phones/{PHONE}", json={"reads": True})
    await platform.worker("whatsapp")
    numbers = await platform.send("a", "b", "c")
    await platform.until(numbers, "read")
    for number in numbers:
        row = await platform.delivery(number)
        assert row["sent_at"] is not None
    assert await platform.shown() == ["a", "b", "c"]


async def test_a_window_closed_fails_and_says_so(platform: Platform) -> None:
    await platform.account(provided_whatsapp(strangers="closed"))
    await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "failed")
    row = await platform.delivery(number)
    assert (row["reason_code"], row["reason"]) == ("write_first", "The person must write first.")


async def test_a_window_known_to_be_closed_asks_nobody(platform: Platform) -> None:
    made = await platform.account(provided_whatsapp())
    await wrote(platform, made.id, hours=25)
    await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "failed")
    assert (await platform.delivery(number))["reason_code"] == "write_first"
    assert (await platform.control.get("/control/calls")).json() == []


async def test_outside_the_window_the_accounts_template_goes(platform: Platform) -> None:
    template = Template(name="notice", language="pt_BR")
    made = await platform.account(provided_whatsapp(strangers="closed"), template=template)
    await wrote(platform, made.id, hours=25)
    await platform.worker("whatsapp")
    (number,) = await platform.send("line one\nline two")
    await platform.until([number], "delivered")
    assert await platform.shown() == ["line one line two"]


async def wrote(platform: Platform, account: int, *, hours: float) -> None:
    await platform.pool.execute(
        "insert into caudal.channel_contact(tenant_id, account_id, address, contact, wrote_at)"
        " values ($1, $2, $3, $4, $5)",
        platform.tenant_id, account, PHONE, PHONE.lstrip("+"), datetime.now(UTC) - timedelta(hours=hours),
    )  # fmt: skip


async def test_a_refused_token_waits_for_the_operator(platform: Platform) -> None:
    provided = provided_whatsapp()
    made = await platform.account(provided)
    provided.token = "another"
    await platform.worker("whatsapp")
    numbers = await platform.send("one", "two")
    problem = await platform.query("select problem from caudal.channel_account where id = $1", made.id)
    assert "190" in problem
    assert "sandbox-whatsapp-token" not in problem
    change = AccountChange(token="another")
    async with platform.pool.acquire() as connection, connection.transaction():
        await connection.execute("select set_config('app.tenant_id', $1, true)", TENANT)
        await platform.accounts.change(connection, made.id, change)
    await platform.until(numbers, "delivered", seconds=20)
    assert await platform.shown() == ["one", "two"]
    assert await platform.pool.fetchval("select problem from caudal.channel_account") is None
    # Waiting for an operator is no failure that counts.
    assert {(await platform.delivery(number))["failures"] for number in numbers} == {0}


async def test_a_provider_that_is_down_is_left_alone_and_all_goes_out_in_order_after(
    platform: Platform,
) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.behaviour = Behaviour(fault="status", status=503)
    metrics = await platform.worker("whatsapp", breaker_failures=3, connector_retry_first=0.02)
    numbers = []
    for n in range(10):
        numbers += await platform.send(f"{n}", to=PHONE, conversation="c1")
        numbers += await platform.send(f"{n}", to=OTHER, conversation="c2")
    opened = {"channel": "whatsapp", "from": "closed", "to": "open"}
    async with asyncio.timeout(30):
        while not value(metrics, "circuit_breaker_transitions_total", **opened):
            await asyncio.sleep(0.02)
    calls = len((await platform.control.get("/control/calls")).json())
    assert 3 <= calls <= 3 + 16
    provided.behaviour = Behaviour()
    await platform.until(numbers, "delivered", seconds=20)
    assert await platform.shown(PHONE) == [f"{n}" for n in range(10)]
    assert await platform.shown(OTHER) == [f"{n}" for n in range(10)]
    assert value(metrics, "circuit_breaker_state", channel="whatsapp") == 0


async def test_without_an_account_it_fails_and_says_what_to_do(platform: Platform) -> None:
    await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "failed")
    row = await platform.delivery(number)
    assert row["reason_code"] == "no_account"
    assert "caudal connector add" in row["reason"]


async def test_the_rate_of_a_number_is_kept_by_two_workers(platform: Platform) -> None:
    provided = provided_whatsapp(per_second=20)
    await platform.account(provided, per_second=20)
    one = await platform.worker("whatsapp")
    two = await platform.worker("whatsapp")
    numbers = []
    for n in range(40):
        numbers += await platform.send("x", to=f"+55119{n:08}", conversation=f"c{n}")
    await platform.until(numbers, "delivered", seconds=30)
    outcomes = (await platform.control.get("/control/state")).json()["calls"]
    assert outcomes == {"accepted": 40}
    shares = [value(m, "messages_sent_total", channel="whatsapp", status="sent") for m in (one, two)]
    assert sum(shares) == 40
    assert all(share > 0 for share in shares)


async def test_a_record_that_is_none_is_dead_lettered_and_the_rest_goes_on(platform: Platform) -> None:
    await platform.account(provided_whatsapp())
    await platform.worker("whatsapp")
    async with platform.working.acquire() as connection, connection.transaction():
        await connection.execute(
            "select caudal.log_append('whatsapp-outbound', $1, $2)", ["c1"], [b"not json"]
        )
    (number,) = await platform.send("hello")
    await platform.until([number], "delivered")
    row = await platform.query("select topic || ' ' || reason from caudal.dead_letter")
    assert row == "log:whatsapp-outbound unreadable"


async def test_secrets_are_sealed(platform: Platform) -> None:
    await platform.account(provided_whatsapp())
    raw = await platform.pool.fetchval("select secrets from caudal.channel_account")
    assert b"sandbox" not in raw


async def test_an_outcome_outlives_a_database_that_is_away(platform: Platform, monkeypatch: Any) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.webhook_url = None
    settle, failures = platform.deliveries.settle, iter([OSError("away"), ConnectionResetError("away")])

    async def flaky(*arguments: Any) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        await settle(*arguments)

    monkeypatch.setattr(platform.deliveries, "settle", flaky)
    await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "sent")
    assert (await platform.delivery(number))["provider_id"].startswith("wamid.")
    assert await platform.shown() == ["hello"]
