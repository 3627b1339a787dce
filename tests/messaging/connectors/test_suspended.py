"""A tenant that is suspended sends nothing; what it had accepted goes out, in order, once it may again."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.messaging import accounts, sending
from tests.messaging.connectors.conftest import TENANT, Platform, provided_whatsapp
from tests.messaging.connectors.test_webhooks import inbound, ready_path, signed

STATUS = "update caudal.tenant set status = $2 where name = $1"


async def test_nothing_goes_out_until_it_may_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(sending, "SUSPENDED_SECONDS", 0.1)
    await platform.account(provided_whatsapp())
    await platform.worker("whatsapp")
    await platform.pool.execute(STATUS, TENANT, "suspended")
    numbers = await platform.send("one", "two", "three")
    # Tried, held, tried again, and nobody was called.
    seen: set[Any] = set()

    def several(until: Any) -> bool:
        seen.add(until)
        return len(seen - {None}) > 2

    await platform.query(
        "select next_attempt_at from caudal.delivery where id = $1", numbers[0], until=several
    )
    row = await platform.delivery(numbers[0])
    assert (row["reason_code"], row["attempt"], row["failures"]) == ("suspended", 0, 0)
    assert (await platform.control.get("/control/calls")).json() == []
    # What people write to it is kept meanwhile: the provider would not say it twice.
    path = await ready_path(platform)
    body = inbound("5511999997777", text="are you there?")
    answer = await platform.api.client.post(path, content=body, headers=signed(body))
    assert answer.status_code == 200
    asked = "select count(*) from caudal.message where content = 'are you there?'"
    await platform.query(asked)
    await platform.pool.execute(STATUS, TENANT, "active")
    await platform.until(numbers, "delivered", seconds=20)
    assert await platform.shown() == ["one", "two", "three"]
