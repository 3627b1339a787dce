"""What rollups cost the one who ingests: rows a second with a writer's duties to them, against without.

Writers on two connections COPY batches of live samples (and of samples forty days late: every hour
of every series touched needs a mark), in turns with the duties and without, off, on, on, off, so that a busy
machine and a growing table weigh on both alike. A refresher runs in the turns with them. In the end what
waits is rolled up, and the hour that was filled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg

from caudal.core import db
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.insight.rollups import Refresher
from caudal.telemetry import invalidation
from caudal.telemetry.rows import COLUMNS, HEADER, NO_META, TRAILER, head, pack_numbers, times

SERIES = 10_000
POINTS = 10
ROWS = 8000  # of one transaction: 800 messages
Work = list[tuple[bytes, int]]
"""Messages of one transaction: rows of each, and the instant of them."""


def batch(start: int, number: int, ids: list[int]) -> Work:
    """Messages of batch `number`; one ms further with each round of all series."""
    made = []
    for i in range(number * ROWS, (number + 1) * ROWS, POINTS):
        turn, place = divmod(i, len(ids))
        ts = start + turn * 1000
        middle = times(ts, ts)
        parts: list[bytes | float] = []
        for one in ids[place : place + POINTS]:
            parts += (head(one, 0, 1), middle, float(i), NO_META)
        made.append((pack_numbers(parts, POINTS), ts))
    return made


async def writer(url: str, work: list[Work], duties: bool) -> None:
    """Store batches, one transaction each, as telemetry.storage does."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    marks = invalidation.Marks()
    for messages in work:

        async def source(messages: Work = messages) -> Any:
            yield b"".join((HEADER, *(rows for rows, _ in messages), TRAILER))

        async with connection.transaction():
            await connection.copy_to_table(
                "sample", schema_name="caudal", source=source(), columns=COLUMNS, format="binary"
            )
            # The ledger's statement is there with or without rollups; it brings the edge along.
            if not duties:
                await connection.fetchval("select now()")
                continue
            edge = await invalidation.edge(connection)
            late: invalidation.Hours = {}
            for rows, ts in messages:
                if ts < edge.threshold:
                    invalidation.add_packed(late, rows, POINTS, ts)
            late = marks.missing(edge.epoch, late)
            await invalidation.invalidate(connection, late)
        marks.committed(edge.epoch, late)
    await connection.close()


async def turn(
    server: EmbeddedPostgres, start: int, first: int, count: int, ids: list[int], duties: bool
) -> float:
    """Rows a second of `count` batches on two connections; with duties beside a refresher."""
    works = [[batch(start, first + k, ids) for k in range(side, count, 2)] for side in (0, 1)]
    refresher = None
    pool = await db.open_pool(server.url, minimum=1, maximum=2)
    await pool.execute("checkpoint")
    if duties:
        made = Refresher(pool, Metrics())
        await made.step()  # what it takes to start is not what it costs to run
        refresher = asyncio.create_task(made.run())
    began = perf_counter()
    await asyncio.gather(*(writer(server.url, work, duties) for work in works))
    took = perf_counter() - began
    if refresher:
        refresher.cancel()
        await asyncio.wait([refresher])
    await pool.close()
    return count * ROWS / took


async def prepare(pool: asyncpg.Pool[Any], moments: list[int]) -> list[int]:
    """A tenant with its series, and partitions for these moments; the series' numbers."""
    tenant = await pool.fetchval("insert into caudal.tenant(name) values ('bench') returning id")
    await pool.execute("insert into caudal.unit(name) values ('kWh')")
    device = await pool.fetchval(
        "insert into caudal.device(tenant_id, name) values ($1, 'd') returning id", tenant
    )
    rows = await pool.fetch(
        "insert into caudal.series(tenant_id, device_id, name) select $1, $2, 'p' || i"
        " from generate_series(1, $3::int) i returning id", tenant, device, SERIES,
    )  # fmt: skip
    for at in moments:
        await pool.execute("select caudal.ensure_partition($1)", datetime.fromtimestamp(at / 1e6, UTC))
    return [row["id"] for row in rows]


async def run(batches: int, pairs: int, only: str = "") -> dict[str, Any]:
    """Live and late (or `only` one of them), with and without, in turns."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg")
        await server.start()
        try:
            await migrate(server.url)
            pool = await db.open_pool(server.url, minimum=1, maximum=2)
            now = int(datetime.now(UTC).timestamp()) * 1_000_000
            late = now - 40 * 86400 * 1_000_000
            ids = await prepare(pool, [now, late])
            found: dict[str, Any] = {}
            for name, start in (("live", now), ("late", late)):
                if only not in ("", name):
                    continue
                rates: dict[bool, list[float]] = {True: [], False: []}
                order = [duties for pair in range(pairs) for duties in (pair % 2 == 1, pair % 2 == 0)]
                for number, duties in enumerate(order):
                    rate = await turn(server, start, number * batches, batches, ids, duties)
                    rates[duties].append(rate)
                off, on = statistics.median(rates[False]), statistics.median(rates[True])
                found[name] = {
                    "off_rows_per_second": round(off),
                    "on_rows_per_second": round(on),
                    "ratio": round(on / off, 3),
                    "ratios": [round(b / a, 3) for a, b in zip(rates[False], rates[True], strict=True)],
                }
            refresher = Refresher(pool, Metrics())
            began = perf_counter()
            hours = await refresher.settle()
            found["backlog"] = {"hours": hours, "seconds": round(perf_counter() - began, 1)}
            await pool.execute(
                "update caudal.rollup_state set threshold = date_trunc('hour', $1::timestamptz)",
                datetime.fromtimestamp(now / 1e6, UTC),
            )
            began = perf_counter()
            await refresher.advance(datetime.now(UTC) + timedelta(hours=2))
            await refresher.settle()
            took, rows = perf_counter() - began, pairs * 2 * batches * ROWS
            found["hour"] = {"rows": rows, "seconds": round(took, 1), "rows_per_second": round(rows / took)}
            await pool.close()
            return found
        finally:
            await server.stop()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=150, help="of 8,000 rows, in each turn")
    parser.add_argument("--pairs", type=int, default=4, help="of turns, with and without")
    parser.add_argument("--only", choices=("live", "late"), default="", help="half of it")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(run(arguments.batches, arguments.pairs, arguments.only)), indent=2))


if __name__ == "__main__":
    main()
