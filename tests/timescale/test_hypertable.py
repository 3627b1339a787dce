"""The table as a hypertable: chunks for partitions, compression, duplicates found in compressed chunks."""

from __future__ import annotations

import asyncpg

from caudal.app.ingest import build_pipeline
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.mqtt.ports import Principal
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.submit import submit

MESSAGE = (
    "traksense/acme/plant/chiller/telem",
    b'{"schema":"v1","ts":"2025-10-07T15:30:00Z","points":[{"name":"t","v":7.5}]}',
    Principal("test"),
)


async def test_stores_compresses_and_still_knows_duplicates(database_url: str) -> None:
    life = Lifecycle()
    pipeline = await build_pipeline(
        life, database_url, IngestSettings(unknown_tenants="register"), Metrics(), worker="test"
    )
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("select caudal.has_timescale()")
        assert (await submit(pipeline, [MESSAGE]))[0].tally.stored == 1
        await connection.execute("select compress_chunk(c) from show_chunks('caudal.sample') c")
        assert (await submit(pipeline, [MESSAGE]))[0].tally.duplicates == 1
        topic, payload, who = MESSAGE
        late = (topic, payload.replace(b"15:30", b"15:29"), who)
        assert (await submit(pipeline, [late]))[0].tally.stored == 1
        other = (topic, payload.replace(b"7.5", b"8.5"), who)
        assert [letter.reason for letter in (await submit(pipeline, [other]))[0].dead] == ["conflict"]
        # Twice: a conflict is told as one whether its chunk is compressed whole or in part.
        await connection.execute("select compress_chunk(c) from show_chunks('caudal.sample') c")
        assert [letter.reason for letter in (await submit(pipeline, [other]))[0].dead] == ["conflict"]
        await connection.execute("delete from caudal.sample where ts < '2025-10-07T15:30:00Z'")
        assert await connection.fetchval("select v_num from ts_measure") == 7.5
        dropped = await connection.fetch("select caudal.drop_partitions('1 day'::interval)")
        assert len(dropped) == 1
        assert await connection.fetchval("select count(*) from caudal.sample") == 0
    finally:
        await connection.close()
        await life.stop()
