"""Every log there is, for the behaviour suite."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from caudal.core.eventlog.kafka import KafkaLog
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Consumer, EventLog, Outgoing, Partition, Record, Topic
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.metrics import Metrics

LEASE = 1.0
MEMBER = Path(__file__).with_name("member.py")
_numbers = itertools.count()


class Bench:
    """A log under test, and a way to open it once more as another process would."""

    def __init__(self, kind: str, pool: asyncpg.Pool[Any], url: str, settings: LogSettings) -> None:
        self.kind = kind
        self.pool = pool
        self._url = url
        self._settings = settings
        self.topic = f"suite-{next(_numbers)}"
        self.logs: list[EventLog] = []
        self.consumers: list[Consumer] = []
        self.metrics = LogMetrics(Metrics())

    async def open(self) -> EventLog:
        make: Any = KafkaLog if self.kind == "kafka" else PostgresLog
        log: EventLog = make(self.pool, self._url, self._settings)
        await log.start()
        self.logs.append(log)
        await log.ensure([Topic(self.topic, 4)])
        return log

    async def consumer(self, log: EventLog, group: str = "g") -> Consumer:
        made = await log.subscribe([self.topic], group)
        self.consumers.append(made)
        return made

    async def publish(self, log: EventLog, pairs: list[tuple[str, str]]) -> None:
        await log.publish([Outgoing(self.topic, key, value.encode()) for key, value in pairs])

    @asynccontextmanager
    async def member(self, group: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A member of `group` in another process; it has joined."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(MEMBER), self.kind, self._url, self._settings.kafka_bootstrap_servers,
            self.topic, group, str(LEASE), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"joined\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def close(self) -> None:
        for consumer in self.consumers:
            await consumer.close()
        for log in reversed(self.logs):
            await log.stop()


@pytest.fixture(params=["postgres", "kafka"])
async def bench(
    request: pytest.FixtureRequest, pool: asyncpg.Pool[Any], database_url: str
) -> AsyncIterator[Bench]:
    servers = ""
    if request.param == "kafka":
        servers = request.getfixturevalue("kafka_broker").servers
    settings = LogSettings(log_lease_seconds=LEASE, kafka_bootstrap_servers=servers, log_keep_hours=0)
    made = Bench(request.param, pool, database_url, settings)
    try:
        yield made
    finally:
        await made.close()


def committed(records: list[Record]) -> dict[Partition, int]:
    return {r.place: max(o.offset for o in records if o.place == r.place) + 1 for r in records}
