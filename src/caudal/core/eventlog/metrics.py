"""Metrics of whoever consumes a log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
from prometheus_client import Gauge

from caudal.core.errors import Unavailable
from caudal.core.eventlog.port import Consumer, EventLog, Partition
from caudal.core.metrics import Metrics

LAG_EVERY = 1.0


class LogMetrics:
    """What a consuming process says about its log; one for each process."""

    def __init__(self, metrics: Metrics) -> None:
        self.consumed = metrics.counter("messages_consumed", "Records processed", "topic", "partition")
        self.dead = metrics.counter("messages_dead_lettered", "Records put with the dead letters", "topic")
        self.lag = metrics.gauge(
            "kafka_consumer_lag",
            "Records of the partitions held that are not processed",
            "topic",
            "partition",
        )
        self.relay = metrics.gauge(
            "kafka_relay_lag",
            "Records published that Kafka has not acknowledged, of the partitions that this process carries",
            "topic",
            "partition",
        )

    async def watch(self, consumer: Consumer) -> None:
        """Keep the lag true: what cannot be asked, or is not ours any more, is not shown at all."""
        await self._keep(consumer.lag, self.lag)

    async def watch_relay(self, log: EventLog) -> None:
        """The same for what a log carries on to where consumers read; of what this process carries."""
        await self._keep(log.backlog, self.relay)

    async def _keep(self, ask: Callable[[], Awaitable[dict[Partition, int]]], gauge: Gauge) -> None:
        shown: set[tuple[str, int]] = set()
        while True:
            try:
                lag = await ask()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, Unavailable):
                lag = {}
            for gone in shown - lag.keys():
                gauge.remove(*gone)
            for place, records in lag.items():
                gauge.labels(*place).set(records)
            shown = {(place.topic, place.number) for place in lag}
            await asyncio.sleep(LAG_EVERY)
