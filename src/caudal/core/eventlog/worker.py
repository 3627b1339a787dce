"""Two ways to work through a log, both with any consumer: in batches of one transaction, or in lanes.

Both commit after processing, retry what may succeed later, put what never will with the dead letters, and go
on.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from caudal.core import logs
from caudal.core.errors import CaudalError
from caudal.core.eventlog.deadletters import bury
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Connection, Consumer, Partition, PartitionLost, Poison, Record
from caudal.core.eventlog.postgres import LOST_TOUCH

log = logs.get("worker")
AfterCommit = Callable[[], None]
BatchHandler = Callable[[list[Record], Connection], Awaitable[AfterCommit | None]]
LaneHandler = Callable[[Record], Awaitable[None]]

POLL = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
# An error that we cannot classify may be a passing one.
ATTEMPTS = 3
PASSING = (
    *LOST_TOUCH,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
)


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed later without anybody touching it."""
    return isinstance(error, PASSING) or (isinstance(error, CaudalError) and error.retryable)


def pause(attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1: doubling, at most 5, with jitter."""
    # A pause is no secret.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311


def positions(records: list[Record]) -> dict[Partition, int]:
    """The offsets to commit once all of `records` are processed."""
    found: dict[Partition, int] = {}
    for record in records:
        found[record.place] = max(found.get(record.place, 0), record.offset + 1)
    return found


class BatchWorker:
    """Processes batches in order, each in one transaction together with its commit where the log can do that.

    `handle` gets the records and a connection in a transaction; what it returns is called after the commit.
    With a log outside PostgreSQL a batch may come again after a crash, so `handle` must find its own earlier
    work. A batch that fails is halved until the bad record stands alone.
    """

    def __init__(
        self, pool: asyncpg.Pool[Any], consumer: Consumer, handle: BatchHandler, metrics: LogMetrics, *,
        batch: int = 200,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._consumer = consumer
        self._handle = handle
        self._metrics = metrics
        self._batch = batch

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                records = await self._consumer.poll(self._batch, POLL)
            except PASSING as error:
                log.warning("the log does not answer", error=repr(error))
                await asyncio.sleep(pause(3))
                continue
            if not records:
                continue
            try:
                await self._process(records)
            except PartitionLost:
                log.info("partitions went to another worker")
                await self._consumer.rewind()
                continue
            for record in records:
                self._metrics.consumed.labels(record.topic, record.partition).inc()

    async def _process(self, records: list[Record]) -> None:
        attempt = 0
        while True:
            try:
                return await self._once(records, self._handle)
            except PartitionLost:
                raise
            except Exception as error:
                if is_passing(error):
                    log.warning("batch will be tried again", records=len(records), error=repr(error))
                    await asyncio.sleep(pause(attempt))
                    attempt += 1
                    if isinstance(error, LOST_TOUCH):
                        # It may have been committed; only the log knows where to go on.
                        raise PartitionLost("The connection was lost.") from error
                elif len(records) > 1:
                    middle = len(records) // 2
                    await self._process(records[:middle])
                    return await self._process(records[middle:])
                elif isinstance(error, Poison) or attempt + 1 >= ATTEMPTS:
                    return await self._bury(records[0], error)
                else:
                    attempt += 1
                    await asyncio.sleep(pause(attempt))

    async def _bury(self, record: Record, error: Exception) -> None:
        log.error(
            "record dead-lettered", topic=record.topic, offset=record.offset, error=type(error).__name__
        )
        self._metrics.dead.labels(record.topic).inc()

        async def keep(_records: list[Record], connection: Connection) -> None:
            await bury(connection, record, error)

        await self._once([record], keep)

    async def _once(self, records: list[Record], handle: BatchHandler) -> None:
        done = positions(records)
        if not all(self._consumer.holds(place) for place in done):
            raise PartitionLost("The partition went to another consumer.")
        async with self._pool.acquire() as connection, connection.transaction():
            after = await handle(records, connection)
            if self._consumer.transactional:
                await self._consumer.commit(done, connection)
        if self._consumer.transactional:
            self._consumer.settled(done)
        else:
            await self._consumer.commit(done)
        if after is not None:
            after()


class _Progress:
    """Which records of a partition are being worked on, in order, and which of them are done."""

    def __init__(self) -> None:
        self.last = -1
        self.committed = -1
        self.lost = False
        """Whether one was given up because the partition went away; it comes again, to whoever has that."""
        self._open: deque[list[int]] = deque()
        self._by_offset: dict[int, list[int]] = {}

    def begin(self, offset: int) -> None:
        entry = [offset, 0]
        self._open.append(entry)
        self._by_offset[offset] = entry
        self.last = offset

    def done(self, offset: int) -> None:
        self._by_offset.pop(offset)[1] = 1

    def position(self) -> int | None:
        """The offset up to which everything is done, if that moved."""
        moved = None
        while self._open and self._open[0][1]:
            moved = self._open.popleft()[0] + 1
        return moved


class LaneWorker:
    """Processes records of different keys at once, those of one key one after the other.

    At most `concurrency` calls of `handle` at a time, and four times as many records in memory. Only the
    finished beginning of each partition is committed: after a crash whatever lies behind it comes again, so
    `handle` must find its own earlier work. What `handle` raises is tried again when it may pass, for ever
    and in its lane's order; else three times, then the record goes to the dead letters.
    """

    def __init__(
        self, pool: asyncpg.Pool[Any], consumer: Consumer, handle: LaneHandler, metrics: LogMetrics, *,
        concurrency: int = 64,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._consumer = consumer
        self._handle = handle
        self._metrics = metrics
        self._slots = asyncio.Semaphore(concurrency)
        self._most = concurrency * 4
        self._open = 0
        self._room = asyncio.Event()
        self._lanes: dict[tuple[str, str], deque[tuple[Record, _Progress]]] = {}
        self._progress: dict[Partition, _Progress] = {}
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commit(), name="lane commits")
            while True:
                while self._open >= self._most:
                    self._room.clear()
                    await self._room.wait()
                try:
                    records = await self._consumer.poll(self._most - self._open, POLL)
                except PASSING as error:
                    log.warning("the log does not answer", error=repr(error))
                    await asyncio.sleep(pause(3))
                    continue
                for record in records:
                    self._take(record, tasks)

    def _take(self, record: Record, tasks: asyncio.TaskGroup) -> None:
        progress = self._progress.get(record.place)
        if progress is None or progress.lost or record.offset <= progress.last:
            # First time, or the partition was away and came back.
            progress = self._progress[record.place] = _Progress()
        progress.begin(record.offset)
        self._open += 1
        key = (record.topic, record.key)
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = lane = deque()
            tasks.create_task(self._work(key, lane), name=f"lane {record.topic}")
        lane.append((record, progress))

    async def _work(self, key: tuple[str, str], lane: deque[tuple[Record, _Progress]]) -> None:
        while lane:
            record, progress = lane[0]
            if await self._one(record):
                progress.done(record.offset)
            else:
                # Never done: a commit that waits for the database would go past it once that is back.
                progress.lost = True
            lane.popleft()
            self._open -= 1
            self._room.set()
            self._moved.set()
        del self._lanes[key]

    async def _one(self, record: Record) -> bool:
        """Whether it is finished with; not when its partition went away before."""
        attempt = 0
        while self._consumer.holds(record.place):
            try:
                async with self._slots:
                    await self._handle(record)
                self._metrics.consumed.labels(record.topic, record.partition).inc()
                return True
            except Exception as error:
                attempt += 1
                if not is_passing(error) and (isinstance(error, Poison) or attempt >= ATTEMPTS):
                    if await self._bury(record, error):
                        return True
                else:
                    log.warning("record will be tried again", topic=record.topic, offset=record.offset,
                                attempt=attempt, error=repr(error))  # fmt: skip
            await asyncio.sleep(pause(attempt))
        return False

    async def _bury(self, record: Record, error: Exception) -> bool:
        try:
            await bury(self._pool, record, error)
        except PASSING:
            return False
        log.error(
            "record dead-lettered", topic=record.topic, offset=record.offset, error=type(error).__name__
        )
        self._metrics.dead.labels(record.topic).inc()
        return True

    async def _commit(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            done = {place: moved for place, progress in self._progress.items()
                    if (moved := progress.position()) is not None}  # fmt: skip
            for place, offset in done.items():
                self._progress[place].committed = offset
            # One by one when together fails: a lost partition must not keep the others' commits back.
            attempt = 0
            groups = [done] if done else []
            while groups:
                group = groups.pop()
                try:
                    await self._consumer.commit(group)
                except PartitionLost:
                    if len(group) > 1:
                        groups += [{place: offset} for place, offset in group.items()]
                except PASSING as error:
                    log.warning("commit will be tried again", error=repr(error))
                    await asyncio.sleep(pause(attempt))
                    attempt += 1
                    groups.append(group)
