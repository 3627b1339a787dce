"""A member of a group in a process of its own, to be killed: takes one record, says which, and hangs.

python member.py {postgres|kafka} DATABASE_URL KAFKA_SERVERS TOPIC GROUP LEASE
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from caudal.core import db
from caudal.core.eventlog.kafka import KafkaLog
from caudal.core.eventlog.port import Topic
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings


async def main(kind: str, url: str, servers: str, topic: str, group: str, lease: str) -> None:
    settings = LogSettings(log_lease_seconds=float(lease), kafka_bootstrap_servers=servers)
    pool = await db.open_pool(url, minimum=1, maximum=4)
    make: Any = KafkaLog if kind == "kafka" else PostgresLog
    log = make(pool, url, settings)
    await log.start()
    await log.ensure([Topic(topic, 4)])
    consumer = await log.subscribe([topic], group)
    print("joined", flush=True)
    while not (records := await consumer.poll(1, 1.0)):
        pass
    print(records[0].value.decode(), flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
