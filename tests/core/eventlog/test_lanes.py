"""Lanes whose partition goes away and comes back, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Partition, Record
from caudal.core.eventlog.worker import LaneWorker
from caudal.core.metrics import Metrics

PLACE = Partition("t", 0)


class Scripted:
    """A consumer of one partition that loses it and has it again when the test says so."""

    def __init__(self) -> None:
        self.held = True
        self.given: asyncio.Queue[list[Record]] = asyncio.Queue()
        self.committed: asyncio.Queue[int] = asyncio.Queue()

    async def poll(self, maximum: int, timeout: float) -> list[Record]:
        return await self.given.get()

    def holds(self, partition: Partition) -> bool:
        return self.held

    async def commit(self, positions: Mapping[Partition, int], connection: Any = None) -> None:
        self.committed.put_nowait(positions[PLACE])


def records(first: int, last: int) -> list[Record]:
    return [Record("t", 0, n, "k", b"%d" % n, datetime.now(UTC)) for n in range(first, last + 1)]


async def test_what_was_given_up_is_not_committed_and_is_done_when_it_comes_again() -> None:
    consumer: Any = Scripted()
    done: list[int] = []

    async def handle(record: Record) -> None:
        done.append(record.offset)
        # The lease lapses while the first of three is worked on; the others are somebody else's for now.
        consumer.held = done != [0]

    worker = asyncio.create_task(LaneWorker(None, consumer, handle, LogMetrics(Metrics())).run())  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(30):
            consumer.given.put_nowait(records(0, 2))
            assert await consumer.committed.get() == 1
            consumer.held = True
            # Nobody had it meanwhile: it comes again from what is committed.
            consumer.given.put_nowait(records(1, 2))
            while await consumer.committed.get() < 3:
                pass
    finally:
        worker.cancel()
        await asyncio.wait([worker])
