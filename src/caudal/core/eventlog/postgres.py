"""The log in PostgreSQL: nothing to install. See migration 0200 for how offsets stay in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from caudal.core import logs
from caudal.core.errors import Unavailable
from caudal.core.eventlog.append import CHANNEL, append
from caudal.core.eventlog.port import Connection, Consumer, Outgoing, Partition, PartitionLost, Record, Topic
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.wake import Announcer, Listener

log = logs.get("log")
# How long a consumer sleeps at most when nothing wakes it.
LOOK = 1.0
LOST_TOUCH = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

# The lateral part gives each partition's records in order, and makes the join a nested loop: the outer limit
# stops it early. An outer "order by" would first read a full batch of every partition.
FETCH = """
select t.name, r.partition, r."offset", r.key, r.value, r.published
from unnest($1::int2[], $2::int2[], $3::int8[]) with ordinality h(topic_id, partition, next, ord)
join caudal.log_topic t on t.id = h.topic_id
cross join lateral (
  select * from caudal.log_record r
  where r.topic_id = h.topic_id and r.partition = h.partition and r."offset" >= h.next
  order by r."offset" limit $4
) r
limit $4
"""

LAG = """
select t.name, p.partition, p.next_offset - g.committed as lag
from unnest($2::int2[], $3::int2[]) h(topic_id, partition)
join caudal.log_topic t on t.id = h.topic_id
join caudal.log_partition p using (topic_id, partition)
join caudal.log_group g using (topic_id, partition)
where g.name = $1
"""


class PostgresLog:
    """The log on a pool of connections. `url` is for the one connection that listens."""

    def __init__(
        self, pool: asyncpg.Pool[Any], url: str, settings: LogSettings, *, listen: bool = True
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._announcer = Announcer(pool, CHANNEL)
        # A process that only publishes (the API) needs no connection that listens.
        self._listener = Listener(url, CHANNEL, self._wake, self._wake_all) if listen else None
        self._consumers: set[PostgresConsumer] = set()

    async def start(self) -> None:
        if self._listener:
            try:
                await self._listener.start()
            except LOST_TOUCH as error:
                raise Unavailable("The log's database does not answer. Is PostgreSQL running?") from error

    async def stop(self) -> None:
        if self._listener:
            await self._listener.stop()
        await self._announcer.stop()

    async def ensure(self, topics: Sequence[Topic]) -> None:
        for topic in topics:
            await self._pool.fetchval("select caudal.log_ensure($1, $2)", topic.name, topic.partitions)

    async def publish(self, records: Sequence[Outgoing], connection: Connection | None = None) -> None:
        if connection is None:
            async with self._pool.acquire() as own, own.transaction():
                await self.publish(records, own)
            self.announce(*{record.topic for record in records})
            return
        await append(connection, records)

    def announce(self, *topics: str) -> None:
        for topic in topics:
            self._wake(topic)
        self._announcer.announce(topics)

    def _wake(self, topic: str) -> None:
        for consumer in self._consumers:
            if topic in consumer.topics:
                consumer.wake()

    def _wake_all(self) -> None:
        for consumer in self._consumers:
            consumer.wake()

    async def subscribe(self, topics: Sequence[str], group: str) -> Consumer:
        rows = await self._pool.fetch(
            "select name, id from caudal.log_topic where name = any($1)", list(topics)
        )
        ids = {row["name"]: row["id"] for row in rows}
        if missing := set(topics) - set(ids):
            raise Unavailable(f"There is no topic {sorted(missing)[0]}. Ensure it first.")
        consumer = PostgresConsumer(self._pool, ids, group, self._settings.log_lease_seconds)
        await consumer.join()
        self._consumers.add(consumer)
        consumer.on_close = lambda: self._consumers.discard(consumer)
        return consumer

    async def trim(self, limit: int = 20_000) -> int:
        """Drop records whose time is over; returns how many. Safe to run in several processes."""
        keep = timedelta(hours=self._settings.log_keep_hours)
        unread = timedelta(days=self._settings.log_keep_unread_days)
        gone: int = await self._pool.fetchval("select caudal.log_trim($1, $2, $3)", keep, unread, limit)
        return gone

    async def backlog(self) -> dict[Partition, int]:
        return {}

    async def ping(self) -> None:
        try:
            await self._pool.fetchval("select 1 from caudal.log_topic limit 1", timeout=3)
        except (*LOST_TOUCH, asyncpg.PostgresError) as error:
            raise Unavailable("The log's database does not answer.") from error


class _Held:
    """A partition that we own: where we read, what is committed, under which epoch."""

    __slots__ = ("committed", "epoch", "keep", "next")

    def __init__(self, committed: int, epoch: int) -> None:
        self.next = self.committed = committed
        self.epoch = epoch
        self.keep = True


class PostgresConsumer:
    """A member of a group. Its heartbeat is a task of its own, so that slow processing costs no lease."""

    transactional = True

    def __init__(self, pool: asyncpg.Pool[Any], ids: Mapping[str, int], group: str, lease: float) -> None:
        self._pool = pool
        self._ids = dict(ids)
        self._names = {number: name for name, number in ids.items()}
        self._group = group
        self._lease = lease
        self._member: UUID = uuid4()
        self._held: dict[Partition, _Held] = {}
        self._woken = asyncio.Event()
        self._turn = 0
        self._beat_now = asyncio.Event()
        self._beating = asyncio.Lock()
        self._alive_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self.topics = frozenset(ids)
        self.on_close: Callable[[], None] = lambda: None

    # -- membership

    async def join(self) -> None:
        """Become a member and take what is free."""
        await self._beat()
        self._task = asyncio.create_task(self._keep_beating(), name=f"heartbeat {self._group}")

    async def _keep_beating(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._beat_now.wait(), self._lease / 5)
            except TimeoutError:
                pass
            self._beat_now.clear()
            try:
                async with self._beating:
                    await asyncio.wait_for(self._beat(), self._lease)
            except (*LOST_TOUCH, asyncpg.PostgresError) as error:
                log.warning("heartbeat failed", group=self._group, error=repr(error))
                if time.monotonic() > self._alive_until:
                    # Others hold our partitions by now; the next beat that succeeds says which are ours
                    # again.
                    self._held.clear()
                await asyncio.sleep(min(0.2, self._lease / 5))

    async def _beat(self) -> None:
        drained = [(p, h) for p, h in self._held.items() if not h.keep and h.committed == h.next]
        started = time.monotonic()
        # Losing a heartbeat in a crash loses nothing; waiting for the disk each second would cost something.
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("set local synchronous_commit = off")
            rows = await connection.fetch(
                "select * from caudal.log_heartbeat($1, $2, $3, $4, $5, $6)",
                self._group, self._member, list(self._ids.values()), timedelta(seconds=self._lease),
                [self._ids[p.topic] for p, _ in drained], [p.number for p, _ in drained],
            )  # fmt: skip
        if time.monotonic() > self._alive_until:
            # For a moment nothing was ours, and who worked on it may have given up: read it again.
            self._held.clear()
        self._alive_until = started + self._lease
        held: dict[Partition, _Held] = {}
        for row in rows:
            place = Partition(self._names[row["topic_id"]], row["partition"])
            before = self._held.get(place)
            if before is None or before.epoch != row["epoch"]:
                before = _Held(row["committed"], row["epoch"])
                self._woken.set()
            before.keep = row["keep"]
            held[place] = before
        self._held = held
        if any(not h.keep and h.committed == h.next for h in held.values()):
            self._beat_now.set()

    def wake(self) -> None:
        """There may be something to read."""
        self._woken.set()

    def holds(self, partition: Partition) -> bool:
        return partition in self._held and time.monotonic() < self._alive_until

    # -- reading

    async def poll(self, maximum: int, timeout: float) -> list[Record]:
        deadline = time.monotonic() + timeout
        while True:
            self._woken.clear()
            records = await self._fetch(maximum)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            try:
                await asyncio.wait_for(self._woken.wait(), min(left, LOOK))
            except TimeoutError:
                pass

    async def _fetch(self, maximum: int) -> list[Record]:
        if time.monotonic() > self._alive_until:
            return []
        reading = [(place, held) for place, held in self._held.items() if held.keep]
        if not reading:
            return []
        # Begin with another partition each time: a full one must not starve those behind it.
        self._turn = (self._turn + 1) % len(reading)
        reading = reading[self._turn :] + reading[: self._turn]
        rows = await self._pool.fetch(
            FETCH,
            [self._ids[place.topic] for place, _ in reading],
            [place.number for place, _ in reading],
            [held.next for _, held in reading],
            maximum,
        )
        found = []
        mine = dict(reading)
        for row in rows:
            record = Record(*row.values())
            held = mine[record.place]
            # The heartbeat may have changed hands while the query ran.
            if self._held.get(record.place) is held and record.offset >= held.next:
                held.next = record.offset + 1
                found.append(record)
        return found

    # -- committing

    async def commit(self, positions: Mapping[Partition, int], connection: Connection | None = None) -> None:
        if not positions:
            return
        places = list(positions)
        held = [self._held.get(place) for place in places]
        epochs = [h.epoch for h in held if h is not None]
        if len(epochs) < len(places):
            raise PartitionLost("The partition went to another consumer.")
        arguments = (
            self._group, self._member, [self._ids[p.topic] for p in places], [p.number for p in places],
            epochs, list(positions.values()),
        )  # fmt: skip
        query = "select caudal.log_commit($1, $2, $3, $4, $5, $6)"
        ok = await (connection or self._pool).fetchval(query, *arguments)
        if not ok:
            self._beat_now.set()
            raise PartitionLost("The partition went to another consumer.")
        if connection is None:
            self.settled(positions)

    def settled(self, positions: Mapping[Partition, int]) -> None:
        for place, offset in positions.items():
            if (held := self._held.get(place)) is not None:
                held.committed = max(held.committed, offset)
                if not held.keep and held.committed == held.next:
                    self._beat_now.set()

    async def rewind(self) -> None:
        # Asked of the database: after a connection lost in a commit nobody else knows whether it happened.
        async with self._beating:
            self._held.clear()
        self._beat_now.set()

    async def lag(self) -> dict[Partition, int]:
        places = list(self._held)
        rows = await self._pool.fetch(
            LAG, self._group, [self._ids[p.topic] for p in places], [p.number for p in places]
        )
        return {Partition(row["name"], row["partition"]): row["lag"] for row in rows}

    async def close(self) -> None:
        self.on_close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2)
            self._task = None
        self._held.clear()
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("set local synchronous_commit = off")
                await connection.execute(
                    "delete from caudal.log_member where group_name = $1 and member = $2",
                    self._group,
                    self._member,
                )
                await connection.execute(
                    "update caudal.log_group set owner = null where name = $1 and owner = $2",
                    self._group, self._member,
                )  # fmt: skip
        except (*LOST_TOUCH, asyncpg.PostgresError) as error:
            log.warning("could not leave the group; its lease will end", group=self._group, error=repr(error))
