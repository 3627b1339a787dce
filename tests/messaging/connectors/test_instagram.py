"""Instagram against the sandbox: the person writes first, and reads all when they read the last."""

from __future__ import annotations

from typing import Any

from caudal.sandbox import demo, engine, instagram
from caudal.sandbox.model import Account as Provided
from caudal.sandbox.model import Behaviour, Limits
from tests.messaging.connectors.conftest import Platform


def provided(**limits: Any) -> Provided:
    made = demo.instagram_account()
    made.limits = Limits(**{"per_second": 300, "media_per_second": 10, **limits})
    return made


async def written_to(platform: Platform) -> Provided:
    """An account that @someone has written to."""
    account = provided()
    await platform.account(account)
    await platform.worker("instagram", breaker_failures=100)
    body = {"account": account.id, "text": "hello shop"}
    await platform.control.post("/control/phones/@someone/messages", json=body)
    await platform.query("select count(*) from caudal.channel_contact where address = '@someone'")
    return account


async def send(platform: Platform, *texts: str) -> list[int]:
    return await platform.send(*texts, to="@someone", channel="instagram", conversation="insta")


async def test_nobody_can_be_written_to_first(platform: Platform) -> None:
    await platform.account(provided())
    await platform.worker("instagram")
    (number,) = await send(platform, "hi")
    await platform.until([number], "failed")
    assert (await platform.delivery(number))["reason_code"] == "write_first"
    assert (await platform.control.get("/control/calls")).json() == []


async def test_who_wrote_is_answered_and_reads(platform: Platform) -> None:
    await written_to(platform)
    sender = await platform.query("select sender from caudal.message")
    assert sender == "instagram:@someone"
    numbers = await send(platform, "one", "two", "three")
    await platform.until(numbers, "sent")
    assert await platform.shown("@someone") == ["one", "two", "three"]
    await platform.control.post("/control/phones/@someone/read", json={})
    await platform.until(numbers, "read")


async def test_reading_the_last_reads_all(platform: Platform) -> None:
    account = await written_to(platform)
    numbers = await send(platform, "one", "two", "three")
    await platform.until(numbers, "sent")
    phone = platform.sandbox.world.phones["instagram:@someone"]
    sent = [entry for entry in phone.messages if entry.direction == "in"]
    for entry in sent[:2]:
        # As real phones do: only the last is reported.
        entry.status = "read"
    await platform.control.post("/control/phones/@someone/read", json={})
    await platform.until(numbers, "read")
    assert account.id


async def test_an_echo_settles_what_was_not_answered(platform: Platform) -> None:
    account = await written_to(platform)
    account.behaviour = Behaviour(fault="silence", times=1, receipt_delay_ms=4000)
    (number,) = await send(platform, "once")
    await platform.until([number], "unknown")
    await platform.until([number], "sent")
    assert await platform.shown("@someone") == ["once"]


async def test_an_echo_without_our_reference_is_known_by_its_text(
    platform: Platform, monkeypatch: Any
) -> None:

    def bare(*arguments: Any) -> dict[str, Any]:
        payload = instagram.echo(*arguments)
        payload["entry"][0]["messaging"][0]["message"].pop("metadata", None)
        return payload

    class Bare:
        inbound, seen, answer, wanted = (
            staticmethod(instagram.inbound), staticmethod(instagram.seen), staticmethod(instagram.answer),
            staticmethod(instagram.wanted),
        )  # fmt: skip
        echo = staticmethod(bare)

    monkeypatch.setattr(engine, "instagram", Bare)
    account = await written_to(platform)
    account.behaviour = Behaviour(fault="silence", times=1, receipt_delay_ms=4000)
    (number,) = await send(platform, "once")
    await platform.until([number], "unknown")
    await platform.until([number], "sent")


async def test_outside_the_window_the_person_must_write_first(platform: Platform) -> None:
    await written_to(platform)
    await platform.pool.execute("update caudal.channel_contact set wrote_at = wrote_at - interval '25 hours'")
    (number,) = await send(platform, "late")
    await platform.until([number], "failed")
    assert (await platform.delivery(number))["reason_code"] == "write_first"
