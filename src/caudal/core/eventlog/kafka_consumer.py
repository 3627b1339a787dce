"""A member of a Kafka consumer group. The client blocks, so it lives on a thread of its own.

The thread alone touches the client: it fetches into a bounded buffer, carries out what the loop asks for
(commit, seek, lag), and runs the rebalance callbacks. A partition that is to go to another member is let go
once what was handed out of it has been committed, so that two members never work on one key at the same time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Consumer as Client

from caudal.core import logs
from caudal.core.errors import Unavailable
from caudal.core.eventlog.port import Connection, Partition, PartitionLost, Record

log = logs.get("kafka")

BUFFER = 1000
# How long the thread waits for a first record before it looks for something else to do.
TICK = 0.02
ASK_SECONDS = 5.0
# How long a partition that is to go elsewhere is kept for work under way.
DRAIN_SECONDS = 10.0
LOST = {
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST, KafkaError._STATE, KafkaError.FENCED_INSTANCE_ID,
}  # fmt: skip


class _Held:
    """A partition of ours: what was handed out of it, and what is committed."""

    __slots__ = ("committed", "keep", "next")

    def __init__(self, offset: int) -> None:
        self.next = self.committed = offset
        self.keep = True


class KafkaConsumer:
    """A consumer of the port, on confluent-kafka."""

    transactional = False

    def __init__(self, base: Mapping[str, Any], topics: Sequence[str], group: str, lease: float) -> None:
        self._topics = list(topics)
        self._client = Client(
            {
                **base,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(lease * 1000),
                "heartbeat.interval.ms": int(lease * 200),
                "isolation.level": "read_committed",
            }
        )
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._held: dict[Partition, _Held] = {}
        self._buffer: deque[Record] = deque()
        self._ready = asyncio.Event()
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._paused = False
        self._thread = threading.Thread(target=self._run, name=f"kafka {group}", daemon=True)

    async def start(self) -> None:
        """Join the group; partitions come when Kafka hands them out."""
        self._subscribe()
        self._thread.start()

    def _subscribe(self) -> None:
        self._client.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._answer()
                self._fetch()
            except KafkaException as error:
                # Kafka went away in the middle of a change of hands: join anew.
                log.warning("the Kafka client failed", error=repr(error))
                self._closing.wait(1.0)
                self._drop(list(self._held))
                self._client.unsubscribe()
                self._subscribe()
        self._client.close()

    def _answer(self) -> None:
        while True:
            try:
                work, future = self._asked.get_nowait()
            except queue.Empty:
                return
            try:
                result = work()
            except Exception as error:
                self._tell(_set_exception, future, error)
            else:
                self._tell(_set_result, future, result)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        # The loop may be closed already when a process ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _fetch(self) -> None:
        with self._lock:
            full = len(self._buffer) >= BUFFER
        if full != self._paused:
            # A paused client still has to be polled, or its group thinks it dead.
            change = self._client.pause if full else self._client.resume
            change(self._client.assignment())
            self._paused = full
        first = self._client.poll(TICK)
        if first is None:
            return
        # `consume` would wait for its number to be full; after the first it takes what is there.
        self._keep([first, *self._client.consume(BUFFER // 4, 0)])

    def _keep(self, messages: Sequence[Message]) -> None:
        with self._lock:
            for message in messages:
                error = message.error()
                if error is not None:
                    log.warning("Kafka says", error=str(error))
                    continue
                record = _record(message)
                held = self._held.get(record.place)
                if held is not None and held.keep:
                    self._buffer.append(record)
        self._tell(self._ready.set)

    # -- changes of hands, on the thread

    def _on_assign(self, client: Client, partitions: list[TopicPartition]) -> None:
        for known in client.committed(partitions, ASK_SECONDS):
            offset = known.offset
            if offset < 0:
                offset = client.get_watermark_offsets(known, ASK_SECONDS)[0]
            with self._lock:
                self._held[Partition(known.topic, known.partition)] = _Held(offset)
        with self._lock:
            placed = [_at(place, held.next) for place, held in self._held.items()]
        mine = {(p.topic, p.partition) for p in partitions}
        client.incremental_assign([p for p in placed if (p.topic, p.partition) in mine])
        self._paused = False

    def _on_revoke(self, client: Client, partitions: list[TopicPartition]) -> None:
        places = [Partition(p.topic, p.partition) for p in partitions]
        with self._lock:
            going = [self._held[place] for place in places if place in self._held]
            for held in going:
                held.keep = False
            self._buffer = deque(record for record in self._buffer if record.place not in places)
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and not self._closing.is_set():
            self._answer()
            if all(held.committed >= held.next for held in going):
                break
            self._closing.wait(TICK / 4)
        self._drop(places)
        client.incremental_unassign(partitions)

    def _on_lost(self, client: Client, partitions: list[TopicPartition]) -> None:
        self._drop([Partition(p.topic, p.partition) for p in partitions])
        client.incremental_unassign(partitions)

    def _drop(self, places: Sequence[Partition]) -> None:
        with self._lock:
            for place in places:
                self._held.pop(place, None)
            self._buffer = deque(record for record in self._buffer if record.place not in places)

    # -- the loop

    async def _ask(self, work: Callable[[], Any]) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.put((work, future))
        return await asyncio.wait_for(future, ASK_SECONDS + DRAIN_SECONDS)

    async def poll(self, maximum: int, timeout: float) -> list[Record]:
        deadline = time.monotonic() + timeout
        while True:
            self._ready.clear()
            records = self._take(maximum)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            try:
                await asyncio.wait_for(self._ready.wait(), left)
            except TimeoutError:
                pass

    def _take(self, maximum: int) -> list[Record]:
        taken: list[Record] = []
        with self._lock:
            while self._buffer and len(taken) < maximum:
                record = self._buffer.popleft()
                held = self._held.get(record.place)
                if held is not None and held.keep and record.offset >= held.next:
                    held.next = record.offset + 1
                    taken.append(record)
        return taken

    def holds(self, partition: Partition) -> bool:
        return partition in self._held

    async def commit(self, positions: Mapping[Partition, int], connection: Connection | None = None) -> None:
        if not positions:
            return
        if not all(self.holds(place) for place in positions):
            raise PartitionLost("The partition went to another consumer.")
        offsets = [_at(place, offset) for place, offset in positions.items()]

        def work() -> None:
            with self._lock:
                if any(place not in self._held for place in positions):
                    raise PartitionLost("The partition went to another consumer.")
            self._client.commit(offsets=offsets, asynchronous=False)
            with self._lock:
                for place, offset in positions.items():
                    if (held := self._held.get(place)) is not None:
                        held.committed = max(held.committed, offset)

        try:
            await self._ask(work)
        except KafkaException as error:
            if error.args[0].code() in LOST:
                raise PartitionLost("The partition went to another consumer.") from error
            raise Unavailable("Kafka did not take the commit.") from error

    def settled(self, positions: Mapping[Partition, int]) -> None:
        """Nothing to do: `commit` takes part in no transaction."""

    async def rewind(self) -> None:
        def work() -> None:
            with self._lock:
                self._buffer.clear()
                back = []
                for place, held in self._held.items():
                    held.next = held.committed
                    back.append(_at(place, held.committed))
            for target in back:
                self._client.seek(target)

        try:
            await self._ask(work)
        except KafkaException as error:
            raise Unavailable("Kafka did not go back.") from error

    async def lag(self) -> dict[Partition, int]:
        def work() -> dict[Partition, int]:
            with self._lock:
                held = {place: h.committed for place, h in self._held.items()}
            return {
                place: max(
                    0, self._client.get_watermark_offsets(_at(place, OFFSET_INVALID), 2.0)[1] - committed
                )
                for place, committed in held.items()
            }

        try:
            lag: dict[Partition, int] = await self._ask(work)
        except KafkaException as error:
            raise Unavailable("Kafka does not say how far it is.") from error
        return lag

    async def close(self) -> None:
        self._closing.set()
        await asyncio.to_thread(self._thread.join, ASK_SECONDS + DRAIN_SECONDS)
        self._drop(list(self._held))


def _at(place: Partition, offset: int) -> TopicPartition:
    return TopicPartition(place.topic, place.number, offset)


def _record(message: Message) -> Record:
    kind, stamp = message.timestamp()
    published = datetime.fromtimestamp(stamp / 1000, UTC) if kind else datetime.now(UTC)
    key = message.key() or b""
    return Record(
        message.topic() or "", message.partition() or 0, message.offset() or 0,
        key.decode("utf-8", "replace"), message.value() or b"", published,
    )  # fmt: skip


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
