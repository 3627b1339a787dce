"""The log's port: topics of partitions of records, in order for each key, read by consumer groups.

Two adapters keep to it and pass one behaviour suite: `postgres.PostgresLog` and `kafka.KafkaLog`. With both,
`publish` writes in PostgreSQL, in the caller's transaction if there is one: what was published is durable
when that transaction is, and does not exist when it is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

import asyncpg
import msgspec

from caudal.core.errors import CaudalError, Unavailable

# A pool lends out proxies that behave as the connection.
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"


class Topic(NamedTuple):
    """A stream of records; all records of one key are in one partition, in order."""

    name: str
    partitions: int = 12


class Outgoing(NamedTuple):
    """A record to publish: topic, key, value (JSON by our contract, but bytes to the log)."""

    topic: str
    key: str
    value: bytes


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Record(msgspec.Struct, frozen=True):
    """A record as a consumer gets it. `offset` grows within its partition."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    published: datetime

    @property
    def place(self) -> Partition:
        """Where it lies."""
        return Partition(self.topic, self.partition)


class PartitionLost(Unavailable):
    """The partition has gone to another member of the group; whoever works on its records must stop.

    Raised by `commit`. With a transaction of one's own: roll it back, the other member does the work again.
    """

    code = "partition_lost"


class Poison(CaudalError):
    """A handler's word that this record can never be processed: it goes to the dead letters.

    `reason` is machine-readable, the sentence is for whoever looks at the dead letter.
    """

    code = "poison"

    def __init__(self, reason: str, sentence: str, *, tenant: str | None = None) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.tenant = tenant


class Consumer(Protocol):
    """One member of a consumer group. Not for use by several tasks at once, `commit` and `lag` excepted."""

    transactional: bool
    """Whether `commit` takes part in a transaction given to it: then processing and commit are one."""

    async def poll(self, maximum: int, timeout: float) -> list[Record]:
        """Up to `maximum` further records of the partitions held, in order within each partition.

        Waits up to `timeout` seconds for the first. What was polled and not committed comes again, to this
        group, after a crash or once this member is closed.
        """
        ...

    async def commit(self, positions: Mapping[Partition, int], connection: Connection | None = None) -> None:
        """Remember that everything below `positions` is processed. Raises PartitionLost."""
        ...

    def settled(self, positions: Mapping[Partition, int]) -> None:
        """Say that the transaction which `commit` took part in has been committed."""
        ...

    async def rewind(self) -> None:
        """Read again from what is committed: the work on what was polled since came to nothing."""
        ...

    def holds(self, partition: Partition) -> bool:
        """Whether records of this partition are still ours to work on."""
        ...

    async def lag(self) -> dict[Partition, int]:
        """Records of the partitions held that are not committed; asked of the log, not guessed."""
        ...

    async def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for a lease to end."""
        ...


class EventLog(Protocol):
    """A log. `start` before use, `stop` after."""

    async def start(self) -> None:
        """Connect. Raises Unavailable when PostgreSQL does not answer."""
        ...

    async def stop(self) -> None:
        """Let go of everything; consumers must be closed already."""
        ...

    async def ensure(self, topics: Sequence[Topic]) -> None:
        """Create the topics that do not exist. One that does keeps its partitions."""
        ...

    async def publish(self, records: Sequence[Outgoing], connection: Connection | None = None) -> None:
        """Append records, in order for each key.

        With `connection` they become part of its transaction: publish once in it, and last, because the lock
        that keeps a partition in order is held until the commit. Then call `announce`. Without, they are
        durable on return.
        """
        ...

    def announce(self, *topics: str) -> None:
        """Wake consumers of these topics; called after the commit. Forgotten, they look within a second."""
        ...

    async def subscribe(self, topics: Sequence[str], group: str) -> Consumer:
        """Join `group`; a group that reads a topic for the first time begins with the oldest record."""
        ...

    async def backlog(self) -> dict[Partition, int]:
        """Records published that are still on their way to where consumers read, as far as carried here.

        Empty for a log that consumers read where it is published. Asked of the log, not guessed.
        """
        ...

    async def ping(self) -> None:
        """Really contact what this log rests on. Raises Unavailable."""
        ...
