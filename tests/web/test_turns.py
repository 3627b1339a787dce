"""A tenant that asks for everything at once, beside another: one after the other, and nobody else waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from caudal.core.errors import RateLimited
from caudal.web import turns as module
from caudal.web.turns import AT_ONCE, TOGETHER, Turn, Turns

FLOOD, QUIET = 1, 2


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Asker:
    """Requests of one tenant, each in progress until `end` is called for it."""

    def __init__(self, turns: Turns, tenant: int) -> None:
        self.turns, self.tenant = turns, tenant
        self.begun: list[Turn] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._one()) for _ in range(count)]
        await settle()

    async def _one(self) -> None:
        self.begun.append(await self.turns.begin(self.tenant))

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self.begun.pop(0).end()


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0.0)
    monkeypatch.setattr(module, "PATIENCE", 600.0)
    monkeypatch.setattr(module, "HEARD_SECONDS", 600.0)


async def test_a_tenant_alone_is_never_held_up() -> None:
    asker = Asker(Turns(), FLOOD)
    await asker.ask(100)
    assert len(asker.begun) == 100


@pytest.mark.usefixtures("no_rest")
async def test_beside_another_a_flood_goes_one_by_one_and_the_other_at_once() -> None:
    turns = Turns()
    flood, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    await quiet.ask()
    quiet.end()
    await flood.ask(50)
    assert len(flood.begun) == AT_ONCE
    assert turns.waiting == 50 - AT_ONCE
    flood.end(AT_ONCE)
    for left in range(50 - AT_ONCE - 1, -1, -1):
        async with asyncio.timeout(5):
            while not flood.begun:
                await asyncio.sleep(0)
        await settle()
        assert (len(flood.begun), turns.waiting) == (1, left)
        await quiet.ask()
        assert quiet.begun
        quiet.end()
        flood.end()
    await settle()
    assert not turns._lines


@pytest.mark.usefixtures("no_rest")
async def test_a_few_at_once_are_no_flood() -> None:
    turns = Turns()
    some, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    for _ in range(10):
        await quiet.ask()
        await some.ask(AT_ONCE)
        assert len(some.begun) == AT_ONCE
        some.end(AT_ONCE)
        quiet.end()
    assert not turns._lines


@pytest.mark.usefixtures("no_rest")
async def test_what_shares_a_commit_goes_together() -> None:
    turns = Turns()
    quiet = Asker(turns, QUIET)
    await quiet.ask()
    begun = [await turns.begin(FLOOD, together=True) for _ in range(TOGETHER)]
    waiting = [asyncio.create_task(turns.begin(FLOOD, together=True)) for _ in range(3)]
    await settle()
    assert turns.waiting == 3
    for _ in range(2):
        begun.pop().end()
    await settle()
    assert [task.done() for task in waiting] == [True, True, False]
    for turn in begun:
        turn.end()
    for task in waiting:
        (await task).end()
    quiet.end()
    assert not turns._lines


async def test_a_flood_rests_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 1e9)
    monkeypatch.setattr(module, "PATIENCE", 1e9)
    turns = Turns()
    flood, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    await quiet.ask()
    await flood.ask(AT_ONCE + 1)
    flood.end(AT_ONCE)
    await asyncio.sleep(0.01)
    assert turns.waiting == 1
    for task in flood.tasks:
        task.cancel()


async def test_one_that_takes_long_does_not_stop_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    turns = Turns()
    flood, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    await quiet.ask()
    await flood.ask(AT_ONCE + 3)
    async with asyncio.timeout(5):
        while len(flood.begun) < AT_ONCE + 3:
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("no_rest")
async def test_who_hangs_up_while_waiting_is_forgotten() -> None:
    turns = Turns()
    flood, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    await quiet.ask()
    await flood.ask(AT_ONCE + 3)
    for task in flood.tasks[AT_ONCE:]:
        task.cancel()
    await settle()
    flood.end(AT_ONCE)
    quiet.end()
    async with asyncio.timeout(5):
        while turns._lines:
            await asyncio.sleep(0)


@pytest.mark.usefixtures("no_rest")
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    turns = Turns()
    flood, quiet = Asker(turns, FLOOD), Asker(turns, QUIET)
    await quiet.ask()
    await flood.ask(AT_ONCE + 2)
    with pytest.raises(RateLimited) as refused:
        await turns.begin(FLOOD)
    assert refused.value.closing
    for task in flood.tasks:
        task.cancel()


async def test_each_request_has_its_turn_and_gives_it_back(running_api: Any) -> None:
    headers = await running_api.headers("acme")
    for path, status in (("/api/me", 200), ("/api/devices/none", 404), ("/api/devices?limit=x", 400)):
        answer = await running_api.client.get(path, headers=headers)
        assert answer.status_code == status
    assert not running_api.app.state.gate.turns._lines


async def test_a_request_waits_for_its_turn(running_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = await running_api.headers("acme"), await running_api.headers("zeta")
    assert (await running_api.client.get("/api/me", headers=theirs)).status_code == 200
    for name, value in (("AT_ONCE", 0), ("HEARD_SECONDS", 600.0), ("PATIENCE", 0.2)):
        monkeypatch.setattr(module, name, value)
    asking = asyncio.create_task(running_api.client.get("/api/me", headers=ours))
    async with asyncio.timeout(10):
        while not running_api.app.state.gate.turns.waiting:
            await asyncio.sleep(0)
    assert (await asking).status_code == 200
