"""What a flood may have while others are heard: small transactions, rests, little that is read of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from caudal.mqtt.ports import Inbound, Principal
from caudal.registry.entries import TenantEntry
from caudal.telemetry import floods
from caudal.telemetry.batch import Batch, Entry
from caudal.telemetry.floods import PIECE_BYTES, PIECE_MESSAGES
from caudal.telemetry.queue import Queue
from caudal.telemetry.settings import IngestSettings

FLOOD, QUIET = 1, 2
SHARE = 500  # of the settings that people have


class Source:
    """A connection. What it has waiting comes in, `turn` messages at a time, whenever it is read."""

    principal = Principal("source")
    client_id = "source"

    def __init__(self, queue: Queue, *, waiting: int = 0, turn: int = 30, tenant: int = FLOOD) -> None:
        self.queue, self.waiting, self.turn, self.tenant = queue, waiting, turn, tenant
        self.held = self.quota = False
        self.let_go_at: list[int] = []

    def settle(self, messages: Sequence[Inbound], reason: int = 0) -> None: ...

    def hold_back(self, *, quota: bool = False) -> None:
        assert not self.held, "held back twice"
        self.held = True

    def let_go(self, *, quota: bool = False) -> None:
        assert self.held
        self.held = False
        self.let_go_at.append(self.queue._floods.in_flight[self.tenant])
        self.read()

    def read(self) -> None:
        while self.waiting and not self.held:
            count = min(self.turn, self.waiting)
            self.waiting -= count
            arrive(self.queue, self.tenant, self, count)


def arrive(queue: Queue, tenant: int, origin: Source, count: int = 1, *, rows: int = 68) -> None:
    for _ in range(count):
        message = Inbound("t", b"x" * 100, 1, False, False, 1, origin, 0)
        queue.arrived(message)
        queue.add(Entry(message, tenant, 1, rows=b"r" * rows, count=1), queue.batch_for(tenant))
    queue.check()


def quiet(queue: Queue) -> Source:
    return Source(queue, tenant=QUIET)


def of(batch: Batch) -> set[int]:
    return {entry.tenant_id for entry in batch.entries}


async def restrained(
    *, waiting: int = 600, connections: int = 8, read: int = 2 * SHARE
) -> tuple[Queue, list[Source]]:
    """A queue with a flood, of which so much was read, and another tenant that was heard and answered."""
    queue = Queue(IngestSettings())
    sources = [Source(queue, waiting=waiting) for _ in range(connections)]
    while queue.messages < read:
        for source in sources:
            if source.waiting:
                source.waiting -= source.turn
                arrive(queue, FLOOD, source, source.turn)
    arrive(queue, QUIET, quiet(queue))
    express = await queue.take(express=True)
    while QUIET not in of(express):
        queue.settled(express)
        express = await queue.take(express=True)
    queue.settled(express)
    return queue, sources


async def next_piece(queue: Queue) -> Batch:
    return await asyncio.wait_for(queue.take(), 5)


async def test_a_flood_that_is_held_down_is_written_in_pieces_and_in_order() -> None:
    queue, _ = await restrained(read=3000)
    seen = [
        id(entry) for batch in (*queue._heavy.closed, queue._heavy.open) if batch for entry in batch.entries
    ]
    written: list[int] = []
    while len(written) < min(len(seen), 20 * PIECE_MESSAGES):
        arrive(queue, QUIET, quiet(queue))
        piece = await next_piece(queue)
        if FLOOD in of(piece):
            assert len(piece.entries) <= PIECE_MESSAGES
            written += [id(entry) for entry in piece.entries]
        queue.settled(piece)
    assert written == seen[: len(written)]


async def test_a_piece_is_bounded_in_rows_but_holds_one_message_at_least() -> None:
    queue = Queue(IngestSettings())
    source = Source(queue)
    arrive(queue, FLOOD, source, SHARE + 1, rows=10)
    arrive(queue, FLOOD, source, 50, rows=PIECE_BYTES // 4)
    arrive(queue, FLOOD, source, 2, rows=2 * PIECE_BYTES)
    sizes = []
    while queue.messages:
        arrive(queue, QUIET, quiet(queue))
        piece = await next_piece(queue)
        if FLOOD in of(piece) and piece.heavy_since:
            sizes.append((len(piece.entries), piece.size))
        queue.settled(piece)
        if sum(count for count, _ in sizes) == 53:
            break
    assert all(count == 1 or size <= PIECE_BYTES for count, size in sizes)
    assert (1, 2 * PIECE_BYTES) in sizes


async def test_what_was_heard_goes_with_the_last_piece() -> None:
    batch = Batch()
    origin = quiet(Queue(IngestSettings()))
    batch.entries = [
        Entry(Inbound("t", b"", 1, False, False, 1, origin, 0), 1, 1, rows=b"r" * 10) for _ in range(7)
    ]
    batch.size, batch.heard, batch.days, batch.told = 70, {1: 2}, {3}, True
    rest = batch.cut(3, 1000)
    assert rest is not None
    assert (len(batch.entries), batch.size, batch.heard) == (3, 30, {})
    assert (len(rest.entries), rest.size, rest.heard) == (4, 40, {1: 2})
    assert batch.days == rest.days == {3}
    assert batch.told
    assert rest.told
    assert rest.cut(4, 40) is None


async def test_no_more_of_a_flood_is_read_than_its_next_piece() -> None:
    queue, sources = await restrained()
    for source in sources:  # each stops in its next turn
        source.read()
    assert all(source.held for source in sources)
    for _ in range(100):
        arrive(queue, QUIET, quiet(queue))
        batch = await next_piece(queue)
        before = sum(source.waiting for source in sources)
        queue.settled(batch)
        read = before - sum(source.waiting for source in sources)
        assert read <= PIECE_MESSAGES + sources[0].turn
        if not before:
            break
        if all(source.let_go_at for source in sources):
            break
    # One after the other, each when little was left in flight.
    assert all(source.let_go_at for source in sources)
    assert max(at for source in sources for at in source.let_go_at) <= PIECE_MESSAGES // 2


async def test_who_is_let_go_with_nothing_to_say_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(floods, "LINGER", 0.0)
    queue, sources = await restrained(connections=40)
    for source in sources:
        source.read()
    held = [source for source in sources if source.held]
    assert len(held) == len(sources)
    for source in held:
        source.waiting = 0
    while queue._floods.in_flight[FLOOD]:
        before = sum(source.held for source in held)
        queue.settled(await next_piece(queue))
        assert before - sum(source.held for source in held) <= floods.AT_ONCE
    arrive(queue, FLOOD, sources[0])
    assert queue._heavy.filling, "it was taken for a quiet tenant while most of it waits"
    async with asyncio.timeout(floods.RESTRAINED_SECONDS):
        while any(source.held for source in held):
            # Nothing is committed any more that would bring it about.
            await asyncio.sleep(floods.TICK)


async def test_a_flood_alone_is_read_up_to_its_bound_and_written_in_full_batches() -> None:
    settings = IngestSettings()
    queue = Queue(settings)
    source = Source(queue, waiting=10_000)
    source.read()
    assert not source.held
    taken = [await queue.take() for _ in range(3)]  # the first is from before it had more than its share
    assert all(len(batch.entries) >= settings.ingest_batch_size for batch in taken[1:])


async def test_a_flood_is_held_down_from_its_first_moment_when_another_was_heard_just_before() -> None:
    queue = Queue(IngestSettings())
    arrive(queue, QUIET, quiet(queue))
    queue.settled(await queue.take())
    source = Source(queue, waiting=5000)
    source.read()
    assert source.held
    await queue.take(express=True)  # what came before it had more than its share
    assert len((await next_piece(queue)).entries) <= PIECE_MESSAGES


async def test_floods_alone_do_not_restrain_each_other() -> None:
    settings = IngestSettings()
    queue = Queue(settings)
    sources = [Source(queue, waiting=3000, tenant=tenant) for tenant in (FLOOD, 3)]
    for source in sources:
        source.read()
    queue._floods._restrained_until = 0.0  # a second later; what came before the second flooded counted
    for source in sources:
        arrive(queue, source.tenant, source)
    taken = [await queue.take() for _ in range(3)]
    assert sum(len(batch.entries) >= settings.ingest_batch_size for batch in taken) == 2


async def test_two_floods_beside_a_third_tenant_go_on_alike() -> None:
    queue = Queue(IngestSettings())
    sources = [Source(queue, waiting=10_000, tenant=tenant) for tenant in (FLOOD, 3, FLOOD, 3)]
    for source in sources:
        arrive(queue, source.tenant, source, SHARE)
    arrive(queue, QUIET, quiet(queue))
    for source in sources:
        source.read()
    written = dict.fromkeys((FLOOD, QUIET, 3), 0)
    while min(written[FLOOD], written[3]) < 5000:
        arrive(queue, QUIET, quiet(queue))
        batch = await next_piece(queue)
        for entry in batch.entries:
            written[entry.tenant_id] += 1
        queue.settled(batch)
    assert max(written[FLOOD], written[3]) < 7000


async def test_small_windows_flood_too() -> None:
    queue = Queue(IngestSettings())
    sources = [Source(queue) for _ in range(100)]
    for source in sources:
        arrive(queue, FLOOD, source, 8)
    arrive(queue, QUIET, quiet(queue))
    batches = [await queue.take() for _ in range(2)]
    assert any(FLOOD in of(batch) and batch.heavy_since for batch in batches)


async def test_who_is_beyond_its_quota_goes_apart() -> None:
    queue = Queue(IngestSettings())
    tenant = TenantEntry(FLOOD, "flood", "hold", 100, True, None, {}, message_rate=10)
    source = Source(queue)
    queue.meter(tenant, source, 1, messages=30)
    arrive(queue, FLOOD, source, 30)
    arrive(queue, QUIET, quiet(queue))
    assert of(await queue.take(express=True)) == {QUIET}
    assert of(await next_piece(queue)) == {FLOOD}


async def test_who_is_held_down_for_long_is_let_go_by_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(floods, "_now", lambda: clock)
    made = floods.Floods(IngestSettings())
    source = quiet(Queue(IngestSettings()))

    def heard() -> tuple[int, int]:
        made.is_one(QUIET)
        made.is_one(FLOOD)
        return made.piece(clock)

    def overflows() -> None:
        made.took(FLOOD, SHARE + 1, source)
        assert made.is_one(FLOOD)

    made.is_one(QUIET)
    overflows()
    rests = []
    for doubled in range(floods.EASE_MOST + 3):
        ease = 1 << min(doubled, floods.EASE_MOST)
        assert heard() == (PIECE_MESSAGES * ease, PIECE_BYTES * ease)
        made.begins()
        made.ends(clock - 1)
        rests.append(made.rest_until - clock)
        for _ in range(10):  # as often as most devices speak
            clock += floods.EASE_SECONDS / 10
            heard()
    assert rests[:3] == [floods.REST, floods.REST / 2, floods.REST / 4]
    # It has caught up; what comes then is another flood.
    made._held.clear()
    clock += 2 * floods.LINGER
    made.settled(Counter({FLOOD: SHARE + 1}))
    heard()
    overflows()
    assert heard() == (PIECE_MESSAGES, PIECE_BYTES)
    # And so is one that goes on when the others fell silent for a while, and speak again.
    clock += 10 * floods.EASE_SECONDS
    assert heard() == (PIECE_MESSAGES, PIECE_BYTES)


async def test_more_of_a_flood_is_read_once_it_may_write_more(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, sources = await restrained(waiting=3000)
    for source in sources:
        source.read()
    monkeypatch.setattr(floods, "EASE_SECONDS", 1e-6)
    sizes = []
    while any(source.waiting for source in sources):
        arrive(queue, QUIET, quiet(queue))
        batch = await next_piece(queue)
        sizes.append(len(batch.entries))
        queue.settled(batch)
    assert max(sizes) > 10 * PIECE_MESSAGES
