"""Metrics of whoever consumes a log."""

from __future__ import annotations

import asyncio

import asyncpg

from caudal.core.errors import Unavailable
from caudal.core.eventlog.port import Consumer
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

    async def watch(self, consumer: Consumer) -> None:
        """Keep the lag true: what cannot be asked, or is not ours any more, is not shown at all."""
        shown: set[tuple[str, int]] = set()
        while True:
            try:
                lag = await consumer.lag()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, Unavailable):
                lag = {}
            for gone in shown - lag.keys():
                self.lag.remove(*gone)
            for place, records in lag.items():
                self.lag.labels(*place).set(records)
            shown = {(place.topic, place.number) for place in lag}
            await asyncio.sleep(LAG_EVERY)
