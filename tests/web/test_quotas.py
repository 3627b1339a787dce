"""A tenant beyond its requests a second: refused, late, and at nobody else's cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from caudal.core.errors import RateLimited
from caudal.web import guards
from caudal.web.guards import Gate


async def limit(api: Any, tenant: str, rate: int) -> None:
    await api.admin.execute(
        "insert into caudal.quota(tenant_id, requests_per_second) select id, $2 from caudal.tenant"
        " where name = $1",
        tenant, rate,
    )  # fmt: skip


async def test_a_refusal_comes_a_second_later_and_others_do_not_wait(running_api: Any) -> None:
    ours, theirs = await running_api.headers("acme"), await running_api.headers("zeta")
    await limit(running_api, "acme", 2)

    async def ask() -> tuple[float, Any]:
        began = time.monotonic()
        answer = await running_api.client.get("/api/me", headers=ours)
        return time.monotonic() - began, answer

    flood = asyncio.gather(*(ask() for _ in range(12)))
    async with asyncio.timeout(5):
        while not running_api.app.state.gate.waiting:
            await asyncio.sleep(0)  # until the first of them waits
    # While they wait, nothing of it is felt elsewhere.
    assert (await running_api.client.get("/api/me", headers=theirs)).status_code == 200
    assert (await running_api.client.get("/health/live")).status_code == 200
    assert not flood.done()
    came = await flood
    refused = [(took, answer) for took, answer in came if answer.status_code == 429]
    assert len(refused) == 10
    assert min(took for took, _ in refused) >= guards.HOLD_SECONDS
    for _, answer in refused:
        assert answer.json()["code"] == "rate_limited"
        assert int(answer.headers["retry-after"]) >= 1
        assert "connection" not in answer.headers
    assert running_api.app.state.gate.waiting == 0


async def test_refusals_go_out_one_by_one_and_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(None, tenant_rate=1, address_rate=0)  # type: ignore[arg-type]
    held: list[float] = []
    go = asyncio.Event()

    async def sleep(seconds: float) -> None:
        held.append(seconds)
        await go.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(guards, "HELD_MAX", 1000)
    waiting = [asyncio.create_task(gate.hold(1), name=f"refusal {n}") for n in range(1000)]
    waiting.append(asyncio.create_task(gate.hold(2), name="another tenant's"))
    async with asyncio.timeout(60):
        while gate.waiting < 1001:
            await asyncio.wait(waiting, timeout=0.001)
    assert held[:3] == [1.0, 1.01, 1.02]
    assert max(held) == guards.HOLD_MOST
    assert held[-1] == 1.0
    with pytest.raises(RateLimited) as refused:
        await gate.hold(1)
    assert refused.value.closing
    # Who hangs up leaves its place.
    waiting[0].cancel()
    go.set()
    await asyncio.wait(waiting)
    assert gate.waiting == 0


async def test_beyond_those_that_wait_the_connection_is_closed(
    running_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await running_api.headers("acme")
    await limit(running_api, "acme", 1)
    monkeypatch.setattr(guards, "HELD_MAX", 0)
    assert (await running_api.client.get("/api/me", headers=headers)).status_code == 200
    answer = await running_api.client.get("/api/me", headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (429, "close")
    assert answer.headers["retry-after"] == "1"
