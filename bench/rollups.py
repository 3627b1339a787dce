"""What rollups cost the one who ingests: rows a second with a writer's duties to them, against without.

Writers on two connections COPY batches of live samples (and, to compare, of samples a month late: every hour
of every series touched leaves a mark), in turns with the duties and without, so that a busy machine weighs on
both alike. A refresher runs in the turns with them; in the end the hour that was filled is rolled up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import pack
from time import perf_counter
from typing import Any

import asyncpg

from caudal.core import db
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.insight.rollups import Refresher
from caudal.telemetry import invalidation
from caudal.telemetry.rows import COLUMNS, HEADER, TRAILER, head, tail, times

SERIES = 10_000
ROWS = 8000  # 800 messages of 10 points


def batch(start: int, number: int, ids: list[int]) -> tuple[bytes, int]:
    """COPY rows of batch `number`, and the oldest instant; one ms further with each round of the series."""
    made, end = [], tail(None)
    for i in range(ROWS):
        turn, place = divmod(number * ROWS + i, len(ids))
        ts = start + turn * 1000
        made.append(head(ids[place], 0, None) + times(ts, ts) + pack(">d", float(i)) + end)
    return b"".join(made), start + number * ROWS // len(ids) * 1000


async def writer(url: str, work: list[tuple[bytes, int]], duties: bool) -> None:
    """Store batches, one transaction each, as telemetry.storage does."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    marks = invalidation.Marks()
    for data, oldest in work:

        async def source(data: bytes = data) -> Any:
            yield HEADER + data + TRAILER

        async with connection.transaction():
            await connection.copy_to_table(
                "sample", schema_name="caudal", source=source(), columns=COLUMNS, format="binary"
            )
            # The ledger's statement is there with or without rollups; it brings the threshold along.
            if not duties:
                await connection.fetchval("select now()")
                continue
            edge = await invalidation.edge(connection)
            missing: set[int] = set()
            if oldest < edge.threshold:
                missing = marks.missing(edge.epoch, invalidation.late_keys(data, ROWS, edge.threshold))
                await invalidation.invalidate(connection, missing)
        if duties:
            marks.committed(edge.epoch, missing)
    await connection.close()


async def turn(url: str, start: int, first: int, count: int, ids: list[int], duties: bool) -> float:
    """Rows a second of `count` batches on two connections."""
    works = [[batch(start, first + k, ids) for k in range(side, count, 2)] for side in (0, 1)]
    refresher = None
    pool = None
    if duties:
        pool = await db.open_pool(url, minimum=1, maximum=2)
        refresher = asyncio.create_task(Refresher(pool, Metrics()).run())
    began = perf_counter()
    await asyncio.gather(*(writer(url, work, duties) for work in works))
    took = perf_counter() - began
    if refresher and pool:
        refresher.cancel()
        await asyncio.wait([refresher])
        await pool.close()
    return count * ROWS / took


async def run(batches: int, turns: int) -> dict[str, Any]:
    """Live and late, with and without, in turns."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg")
        await server.start()
        try:
            await migrate(server.url)
            pool = await db.open_pool(server.url, minimum=1, maximum=2)
            tenant = await pool.fetchval("insert into caudal.tenant(name) values ('bench') returning id")
            device = await pool.fetchval(
                "insert into caudal.device(tenant_id, name) values ($1, 'd') returning id", tenant
            )
            rows = await pool.fetch(
                "insert into caudal.series(tenant_id, device_id, name) select $1, $2, 'p' || i"
                " from generate_series(1, $3::int) i returning id", tenant, device, SERIES,
            )  # fmt: skip
            ids = [row["id"] for row in rows]
            now = int(datetime.now(UTC).timestamp()) * 1_000_000
            late = now - 40 * 86400 * 1_000_000
            for at in (now, late):
                moment = datetime.fromtimestamp(at / 1e6, UTC)
                await pool.execute("select caudal.ensure_partition($1)", moment)
            found: dict[str, dict[str, float]] = {}
            for name, start in (("live", now), ("late", late)):
                rates: dict[bool, list[float]] = {True: [], False: []}
                first = 0
                for number in range(turns * 2):
                    duties = number % 2 == 1
                    rates[duties].append(await turn(server.url, start, first, batches, ids, duties))
                    first += batches
                off, on = sorted(rates[False])[turns // 2], sorted(rates[True])[turns // 2]
                found[name] = {"off_rows_per_second": off, "on_rows_per_second": on, "ratio": on / off}
            began = perf_counter()
            await pool.execute(
                "update caudal.rollup_state set threshold = date_trunc('hour', $1::timestamptz)",
                datetime.fromtimestamp(now / 1e6, UTC),
            )
            refresher = Refresher(pool, Metrics())
            await refresher.advance(datetime.now(UTC) + timedelta(hours=2))
            await refresher.settle()
            took = perf_counter() - began
            live = turns * 2 * batches * ROWS
            found["hour"] = {"rows": live, "series": SERIES, "seconds": took, "rows_per_second": live / took}
            await pool.close()
            return found
        finally:
            await server.stop()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40, help="of 8,000 rows, in each turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(run(arguments.batches, arguments.turns)), indent=2))


if __name__ == "__main__":
    main()
