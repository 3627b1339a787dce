"""Lanes, bounds and shares: what a flood does to others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import uvloop

from caudal.mqtt.ports import Inbound, Principal
from caudal.telemetry.batch import Batch, Entry
from caudal.telemetry.floods import PIECE_MESSAGES
from caudal.telemetry.queue import Queue
from caudal.telemetry.settings import IngestSettings

SETTINGS = IngestSettings(ingest_queue_max=1600, ingest_batch_size=50)
FLOOD, QUIET = 1, 2


class Source:
    principal = Principal("source")
    client_id = "source"

    def __init__(self) -> None:
        self.held = 0
        self.released = 0

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...

    def hold_back(self, *, quota: bool = False) -> None:
        self.held += 1

    def let_go(self, *, quota: bool = False) -> None:
        self.released += 1


def arrive(queue: Queue, tenant: int, origin: Source, count: int = 1) -> None:
    for _ in range(count):
        message = Inbound("t", b"x" * 100, 1, False, False, 1, origin, 0)
        queue.arrived(message)
        queue.add(Entry(message, tenant, 1, rows=b"r" * 68, count=1), queue.batch_for(tenant))
    queue.check()


def tenants(batch: Batch) -> set[int]:
    return {entry.tenant_id for entry in batch.entries}


async def test_a_quiet_tenant_waits_for_one_batch_of_a_flood_at_most() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 1000)
    before = [await queue.take() for _ in range(2)]
    arrive(queue, QUIET, Source())
    for batch in before:
        queue.settled(batch)
    after = [tenants(await queue.take()) for _ in range(2)]
    assert all(FLOOD in tenants(batch) for batch in before)
    assert any(QUIET in found for found in after)


async def test_a_flood_is_restrained_while_others_are_heard() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 1000)
    # What it sent before it had more than its share.
    queue.settled(await queue.take(express=True))
    arrive(queue, QUIET, Source())
    batches = [await queue.take() for _ in range(2)]
    flood, quiet = sorted(batches, key=lambda batch: QUIET in tenants(batch))
    assert QUIET in tenants(quiet)
    assert QUIET not in tenants(flood)
    # Neither merged with those behind it, nor followed by another while it is written.
    assert len(flood.entries) == PIECE_MESSAGES
    queue.settled(quiet)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.settled(flood)
    assert FLOOD in tenants(await asyncio.wait_for(waiting, 1))


async def test_a_flood_s_rest_does_not_hold_up_the_others() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 1000)
    queue.settled(await queue.take(express=True))
    arrive(queue, QUIET, Source())
    queue.settled(await queue.take(express=True))
    queue._floods.rest_until = asyncio.get_running_loop().time() + 10
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    arrive(queue, QUIET, Source())  # paced: due in some milliseconds
    assert QUIET in tenants(await asyncio.wait_for(waiting, 0.5))


def test_a_timer_that_is_due_at_once_under_uvloop() -> None:
    async def main() -> None:
        queue = Queue(SETTINGS)
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue._light.next_open = loop.time() + 0.0001  # its clock stands still until the loop goes on
        for _ in range(3):
            arrive(queue, QUIET, Source())
        assert len((await asyncio.wait_for(waiting, 1)).entries) == 3

    uvloop.run(main())


async def test_a_flood_has_every_writer_while_nobody_else_is_heard() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 1000)
    for _ in range(3):
        assert FLOOD in tenants(await queue.take())


async def test_a_flood_stays_one_until_it_has_far_less_in_flight() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 200)
    taken = []
    while len(queue._light.closed) or queue._heavy.closed or queue._heavy.filling:
        taken.append(await queue.take())
    queue.settled(taken.pop(0))
    arrive(queue, FLOOD, Source(), 10)
    assert queue._heavy.filling, "what it sends went among the others' at once"
    for batch in taken:
        queue.settled(batch)
    while queue.messages:
        queue.settled(await queue.take())
    arrive(queue, FLOOD, Source(), 10)
    assert queue._light.filling


async def test_a_flood_gets_its_turn_beside_many_others() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 400)
    for tenant in range(10, 20):
        arrive(queue, tenant, Source(), 50)
    first = [tenants(await queue.take()) for _ in range(3)]
    assert any(FLOOD in found for found in first)
    assert any(FLOOD not in found for found in first)


async def test_full_batches_that_queue_up_share_a_transaction() -> None:
    queue = Queue(SETTINGS)
    arrive(queue, FLOOD, Source(), 1000)
    sizes = [len((await queue.take()).entries) for _ in range(2)]
    assert max(sizes) == 4 * SETTINGS.ingest_batch_size


async def test_far_beyond_its_share_a_tenant_is_held_back_and_let_go_again() -> None:
    queue = Queue(SETTINGS)
    origin, other = Source(), Source()
    arrive(queue, FLOOD, origin, 401)
    arrive(queue, QUIET, other, 10)
    assert (origin.held, other.held) == (1, 0)
    assert queue.room.is_set()
    while queue.messages:
        queue.settled(await queue.take())
    assert origin.released == 1


async def test_bounds_close_the_doors_and_open_them_half_empty() -> None:
    queue = Queue(SETTINGS)
    resumed: list[int] = []
    queue.on_resume(lambda: resumed.append(queue.messages))
    for tenant in range(4):
        arrive(queue, tenant, Source(), 400)
    assert not queue.room.is_set()
    while queue.messages:
        queue.settled(await queue.take())
    assert queue.room.is_set()
    assert queue.bytes == 0
    assert len(resumed) == 1
    assert resumed[0] <= 800


async def test_an_idle_writer_takes_a_single_message_at_once() -> None:
    queue = Queue(SETTINGS)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    arrive(queue, QUIET, Source())
    batch = await asyncio.wait_for(waiting, 30)
    assert len(batch.entries) == 1
