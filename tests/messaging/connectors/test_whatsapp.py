"""WhatsApp against the sandbox: what goes out, what comes back, and what happens when it does not."""

from __future__ import annotations

from tests.messaging.connectors.conftest import PHONE, Platform, provided_whatsapp


async def test_a_message_goes_out_and_its_receipts_come_back(platform: Platform) -> None:
    await platform.account(provided_whatsapp())
    await platform.worker("whatsapp")
    (number,) = await platform.send("hello")
    await platform.until([number], "delivered")
    row = await platform.delivery(number)
    assert row["provider_id"].startswith("wamid.")
    assert row["account"] == "106540352242922"
    assert row["attempt"] == 1
    assert await platform.shown() == ["hello"]
    await platform.control.post(f"/control/phones/{PHONE}/read", json={})
    await platform.until([number], "read")
