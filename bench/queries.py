"""What people wait for: a year of hourly values of one point, and a month's consumption of 1,000 meters.

`python -m bench.queries --rows 100000000` fills a PostgreSQL of its own with that many samples, has the
refresher make the rollups as it would for a fleet that replays a year, and times the query functions the API
calls, as the API's role. Below 50 M rows only 20 points have a whole year; the others have the last 40 days.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from caudal.core import db
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.insight import consumption, queries
from caudal.insight.rollups import Refresher

METERS = 1000
END = datetime(2025, 7, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
MONTH = timedelta(days=40)
TENANT = "bench"

_FILL = """
insert into caudal.sample(series, ts, received, v_num)
select s, t, t, extract(epoch from t - $3)::float8 / 3600 + (s % 7)
from unnest($1::int[]) s, generate_series($2::timestamptz, $3, $4::interval) t
where t < $3
"""


async def fill(pool: Any, rows: int) -> dict[str, float]:
    """Make the tenant, its meters and `rows` samples; returns what it took in seconds."""
    tenant = await pool.fetchval(
        "insert into caudal.tenant(name, time_zone) values ($1, 'America/Sao_Paulo') returning id", TENANT
    )
    await pool.execute(
        "insert into caudal.device(tenant_id, name) select $1, 'm' || i from generate_series(1, $2) i",
        tenant, METERS,
    )  # fmt: skip
    found = await pool.fetch(
        "insert into caudal.series(tenant_id, device_id, name, kind)"
        " select $1, id, 'valor', 'counter' from caudal.device order by id returning id", tenant,
    )  # fmt: skip
    ids = [row["id"] for row in found]
    long = METERS if rows >= 50_000_000 else 20
    step = (long * YEAR + (METERS - long) * MONTH) / rows
    await pool.execute("update caudal.rollup_state set threshold = $1", END)
    for day in range(0, 366, 27):
        await pool.execute("select caudal.ensure_partition($1)", END - timedelta(days=day))
    started = perf_counter()
    for chosen, span in ((ids[:long], YEAR), (ids[long:], MONTH)):
        for place in range(0, len(chosen), 10):
            await pool.execute(_FILL, chosen[place : place + 10], END - span, END, step, timeout=3600)
    filled = perf_counter() - started
    for chosen, span in ((ids[:long], YEAR), (ids[long:], MONTH)):
        await pool.execute(
            "insert into caudal.rollup_stale select s, h from unnest($1::int[]) s,"
            " generate_series($2::timestamptz, $3, interval '1 hour') h where h < $3",
            chosen, END - span, END, timeout=3600,
        )  # fmt: skip
    started = perf_counter()
    hours = await Refresher(pool, Metrics()).settle()
    rolled = perf_counter() - started
    await pool.execute("vacuum analyze", timeout=3600)
    count = await pool.fetchval("select count(*) from caudal.sample", timeout=3600)
    return {
        "rows": count, "fill_seconds": filled, "rollup_seconds": rolled, "rollup_hours": hours,
        "rollup_rows_per_second": count / rolled,
    }  # fmt: skip


async def timed(times: int, call: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Percentiles of `times` calls in ms, after three that are not counted."""
    for _ in range(3):
        await call()
    took = []
    for _ in range(times):
        started = perf_counter()
        await call()
        took.append((perf_counter() - started) * 1000)
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}


async def measure(url: str, times: int) -> dict[str, dict[str, float]]:
    """Time the queries on a filled database."""
    pool = await db.open_pool(url, minimum=1, maximum=2, role="caudal_app")
    rng = random.Random(1)

    def opener() -> Any:
        return db.tenant_transaction(pool, TENANT, readonly=True)

    names = [f"m{n}/valor" for n in range(1, 21)]
    every = [f"m{n}/valor" for n in range(1, METERS + 1)]
    month = (datetime(2025, 6, 1, 3, tzinfo=UTC), datetime(2025, 6, 30, 12, tzinfo=UTC))

    async def year(interval: str | None) -> None:
        query = queries.SeriesQuery((rng.choice(names),), END - YEAR, END, interval)
        answer = await queries.read(opener, query)
        assert len(answer.series[0].t) > 300

    async def month_of_all() -> None:
        report = await consumption.read(opener, every, "month", *month)
        assert len(report.series) == METERS

    async def view() -> None:
        async with opener() as connection:
            rows = await connection.fetch(
                "select * from tds_new_consumo_mensal where mes_referencia = $1", month[0]
            )
        assert len(rows) == METERS

    async def day() -> None:
        query = queries.SeriesQuery((rng.choice(names),), END - timedelta(days=1), END)
        await queries.read(opener, query)

    async def newest() -> None:
        assert len(await queries.latest(opener)) == METERS

    try:
        return {
            "a year of hourly values of one point": await timed(times, lambda: year("1h")),
            "a year of one point on 1000 pixels": await timed(times, lambda: year(None)),
            "a day of one point on 1000 pixels": await timed(times, day),
            "consumption of 1,000 meters for a month": await timed(times, month_of_all),
            "tds_new_consumo_mensal, one month": await timed(times, view),
            "latest values of 1,000 points": await timed(times, newest),
        }
    finally:
        await pool.close()


async def run(rows: int, times: int = 100) -> dict[str, Any]:
    """Fill a server of its own, measure, stop it."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg", options={"max_wal_size": "4GB"})
        await server.start()
        try:
            await migrate(server.url)
            pool = await db.open_pool(server.url, minimum=1, maximum=2)
            pool_result = await fill(pool, rows)
            await pool.close()
            return {"fill": pool_result, "queries": await measure(server.url, times)}
        finally:
            await server.stop()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=100)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(run(arguments.rows, arguments.times)), indent=2))


if __name__ == "__main__":
    main()
