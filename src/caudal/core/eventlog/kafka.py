"""The log in Kafka, for those who outgrow one machine.

Publishing writes to the PostgreSQL log, in the caller's transaction, as without Kafka: an answer is durable
also while Kafka is away, and what is rolled back was never said. A relay, in each process that consumes,
carries the records over in order and commits when Kafka has them on all replicas. One that dies in between
sends some of them again; whoever consumes finds its own earlier work, as it must with Kafka anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from caudal.core import logs
from caudal.core.errors import Unavailable
from caudal.core.eventlog.kafka_consumer import KafkaConsumer
from caudal.core.eventlog.port import Connection, Consumer, Outgoing, Partition, PartitionLost, Record, Topic
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.worker import pause, positions

log = logs.get("kafka")

RELAY_GROUP = "kafka-relay"
RELAY_BATCH = 500
ASK_SECONDS = 10.0
# How often a blocked thread looks whether it is still wanted.
TICK = 0.2


class KafkaLog:
    """The log on Kafka brokers, with the PostgreSQL log as its outbox."""

    def __init__(self, pool: asyncpg.Pool[Any], url: str, settings: LogSettings) -> None:
        self._settings = settings
        self._outbox = PostgresLog(pool, url, settings)
        self._base: dict[str, str | int | float | bool] = {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "log_level": 3,
        }
        self._admin: AdminClient | None = None
        self._topics: dict[str, Topic] = {}
        self._relay: _Relay | None = None

    async def start(self) -> None:
        await self._outbox.start()
        self._admin = AdminClient(self._base)

    async def stop(self) -> None:
        if self._relay is not None:
            await self._relay.stop()
        await self._outbox.stop()

    async def ensure(self, topics: Sequence[Topic]) -> None:
        await self._outbox.ensure(topics)
        new = [topic for topic in topics if topic.name not in self._topics]
        if not new:
            return
        await asyncio.to_thread(self._create, new)
        self._topics.update({topic.name: topic for topic in new})
        if self._relay is not None:
            await self._relay.stop()
        self._relay = _Relay(self._outbox, list(self._topics), self._base)
        await self._relay.start()

    def _create(self, topics: Sequence[Topic]) -> None:
        assert self._admin is not None
        wanted = [NewTopic(t.name, t.partitions, self._settings.kafka_replication) for t in topics]
        for name, future in self._admin.create_topics(wanted, request_timeout=ASK_SECONDS).items():
            try:
                future.result(ASK_SECONDS)
            except (KafkaException, TimeoutError) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else None
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise Unavailable(f"Kafka did not create topic {name}. Is it running?") from error

    async def publish(self, records: Sequence[Outgoing], connection: Connection | None = None) -> None:
        await self._outbox.publish(records, connection)

    def announce(self, *topics: str) -> None:
        self._outbox.announce(*topics)

    async def subscribe(self, topics: Sequence[str], group: str) -> Consumer:
        consumer = KafkaConsumer(self._base, topics, group, self._settings.log_lease_seconds)
        await consumer.start()
        return consumer

    async def trim(self, limit: int = 20_000) -> int:
        """Drop from the outbox what Kafka has had for long enough; returns how many records."""
        return await self._outbox.trim(limit)

    async def backlog(self) -> dict[Partition, int]:
        return {} if self._relay is None else await self._relay.lag()

    async def ping(self) -> None:
        await self._outbox.ping()
        assert self._admin is not None
        try:
            await asyncio.to_thread(self._admin.list_topics, None, 2.0)
        except KafkaException as error:
            raise Unavailable("Kafka does not answer.") from error


class _Relay:
    """Carries records from the outbox to Kafka, in order, and commits what Kafka has acknowledged."""

    def __init__(self, outbox: PostgresLog, topics: Sequence[str], base: dict[str, Any]) -> None:
        self._outbox = outbox
        self._topics = topics
        self._config = {
            **base,
            "acks": "all",
            "enable.idempotence": True,
            # The Java clients' default: who reads the topics elsewhere computes the same partitions.
            "partitioner": "murmur2_random",
            "linger.ms": 1,
            # Never given up: a record that times out while the next gets through would change places with it.
            "message.timeout.ms": 0,
        }
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._consumer = await self._outbox.subscribe(self._topics, RELAY_GROUP)
        self._task = asyncio.create_task(self._run(self._consumer), name="kafka relay")

    async def lag(self) -> dict[Partition, int]:
        """Records of the outbox that Kafka has not acknowledged, of the partitions carried here."""
        return {} if self._consumer is None else await self._consumer.lag()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=5)
        if self._consumer is not None:
            await self._consumer.close()

    async def _run(self, consumer: Consumer) -> None:
        attempt = 0
        while True:
            producer = Producer(self._config)
            try:
                while True:
                    await self._carry(producer, consumer)
                    attempt = 0
            except Exception as error:
                # Whatever it was, partitions that we hold must not stand still. A new producer begins at what
                # is committed: nothing is left out, a few come twice.
                log.warning("the relay to Kafka begins again", error=repr(error))
                producer.purge()
                await asyncio.sleep(pause(attempt))
                attempt += 1
                await consumer.rewind()
            finally:
                producer.purge()

    async def _carry(self, producer: Producer, consumer: Consumer) -> None:
        records = await consumer.poll(RELAY_BATCH, 1.0)
        if not records:
            return
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        for record in records:
            producer.produce(record.topic, record.value, record.key.encode(), on_delivery=delivered)
        await _flush(producer, consumer, records)
        if failed:
            raise KafkaException(failed[0])
        await consumer.commit(positions(records))


async def _flush(producer: Producer, consumer: Consumer, records: Sequence[Record]) -> None:
    """Return once Kafka has answered for everything. Raises PartitionLost when others carry these by now."""
    places = {record.place for record in records}
    while await asyncio.to_thread(producer.flush, TICK):
        if not all(consumer.holds(place) for place in places):
            raise PartitionLost("The outbox's partition went to another relay.")
