"""What people wait for: a year of hourly values of one point, and a month's consumption of 1,000 meters.

    python -m bench.queries --rows 100000000 --data DIR [--seconds 60]   fills, as far as it gets in that time
    python -m bench.queries --rows 100000000 --data DIR --measure        times the API on what is there

A thousand meters report for a year. Samples and rollups are written a day at a time, all meters of a moment
together, as they would come: the rows of one meter lie as far apart on the disk as they do in real life. The
refresher makes the rollups; forty minutes of the hour under way are there as samples alone. Without `--data`
all of it happens in a temporary folder in one go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from caudal.core import db
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import Child, child_environ
from caudal.insight.rollups import Refresher
from caudal.registry.passwords import Passwords
from caudal.registry.principal import Role
from caudal.registry.tenants import create_person

METERS = 1000
END = datetime(2025, 7, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
DAY = timedelta(days=1)
LIVE = timedelta(minutes=40)
"""Of the hour under way, which is read from the samples."""
TENANT = "bench"
ZONE = "America/Sao_Paulo"
PERSON = {"username": "bench", "password": "bench-password"}

_FILL = """
insert into caudal.sample(series, ts, received, v_num)
select s, t, t, extract(epoch from t - $5)::float8 / 3600 + (s % 7)
from generate_series($2::timestamptz, $3::timestamptz - interval '1 us', $4::interval) t, unnest($1::int[]) s
on conflict do nothing
"""


async def prepare(pool: Any, url: str) -> None:
    """Make the tenant, its person and its meters, and say where the finished hours end."""
    tenant = await pool.fetchval(
        "insert into caudal.tenant(name, time_zone) values ($1, $2) returning id", TENANT, ZONE
    )
    await create_person(pool, Passwords(), tenant=TENANT, role=Role.OWNER, **PERSON)
    await pool.execute(
        "insert into caudal.device(tenant_id, name) select $1, 'm' || i from generate_series(1, $2) i",
        tenant, METERS,
    )  # fmt: skip
    await pool.execute(
        "insert into caudal.series(tenant_id, device_id, name, kind)"
        " select $1, id, 'valor', 'counter' from caudal.device order by id", tenant,
    )  # fmt: skip
    await pool.execute("update caudal.rollup_state set threshold = $1", END)
    for day in range(0, 366, 27):
        await pool.execute("select caudal.ensure_partition($1)", END - timedelta(days=day))
    await pool.execute(
        "create schema bench; create table bench.filled"
        " (day timestamptz primary key, rows bigint, hours bigint, fill float8, roll float8)"
    )


async def fill(pool: Any, rows: int, seconds: float) -> bool:
    """Store and roll up day after day for so many seconds; returns whether all is there."""
    ids = [row["id"] for row in await pool.fetch("select id from caudal.series order by id")]
    step = METERS * YEAR / rows
    began = perf_counter()
    day = await pool.fetchval(
        "select coalesce(max(day) + interval '1 day', $1) from bench.filled", END - YEAR
    )
    refresher = Refresher(pool, Metrics())

    async def store(day: datetime) -> tuple[int, float]:
        started = perf_counter()
        done = await pool.execute(_FILL, ids, day, min(day + DAY, END), step, END - YEAR, timeout=3600)
        return int(done.split()[-1]), perf_counter() - started

    stored, took = await store(day) if day < END else (0, 0.0)
    while day < END and perf_counter() - began < seconds:
        await pool.execute(
            "insert into caudal.rollup_stale select s, h from unnest($1::int[]) s,"
            " generate_series($2::timestamptz, $3, interval '1 hour') h where h < $3 on conflict do nothing",
            ids, day, day + DAY, timeout=3600,
        )  # fmt: skip
        started = perf_counter()
        # The next day comes in while this one is rolled up, as it would.
        hours, after = await asyncio.gather(refresher.settle(), store(day + DAY))
        await pool.execute(
            "insert into bench.filled values ($1, $2, $3, $4, $5)",
            day, stored, hours, took, perf_counter() - started,
        )  # fmt: skip
        day += DAY
        stored, took = after
    if day < END:
        return False
    await pool.execute(_FILL, ids, END, END + LIVE, step, END - YEAR)
    if not await pool.fetchval(
        "select last_vacuum is not null from pg_stat_user_tables where relname = 'rollup_hour'"
    ):
        for table in ("rollup_hour", "rollup_day", "rollup_stale", "rollup_log"):
            await pool.execute(f"vacuum analyze caudal.{table}", timeout=3600)
    return True


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
    return {"p50_ms": round(cuts[49], 1), "p95_ms": round(cuts[94], 1), "p99_ms": round(cuts[98], 1)}


@contextlib.asynccontextmanager
async def api(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An API process of ours, and a client that is signed in."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-api-") as folder:
        environ = child_environ(
            os.environ, DATABASE_URL=url, CAUDAL_MASTER_KEY="x" * 40, API_PORT="0", STATE_DIR=folder,
            RATE_LIMIT_TENANT="1000000", RATE_LIMIT_ADDRESS="0",
        )  # fmt: skip
        child = Child("api", ("caudal", "api"), environ, Path(folder) / "log")
        try:
            base = next(iter((await child.start()).values()))
            async with httpx.AsyncClient(base_url=base, timeout=60) as client:
                answer = await client.post("/auth/token", json=PERSON)
                client.headers["authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
                yield client
        finally:
            await child.stop()


async def measure(url: str, times: int, end: datetime) -> dict[str, dict[str, float]]:
    """Time requests to an API process on a database filled up to `end`, any meter with equal chance."""
    rng = random.Random(1)
    after = end.replace(day=1, hour=3)
    # The last month that is whole in the account's zone; where there is one, with the hour under way.
    month = ((after - DAY).replace(day=1), after - timedelta(hours=3) + LIVE)
    pool = await db.open_pool(url, minimum=1, maximum=2, role="caudal_app")
    async with db.tenant_transaction(pool, TENANT, readonly=True) as connection:
        rows = await connection.fetch("select id from caudal.series order by id")
    ids = [str(row["id"]) for row in rows]
    unseen = ids[20:]
    rng.shuffle(unseen)
    async with api(url) as client:

        async def get(path: str, **query: Any) -> Any:
            return (await client.get(path, params=query)).raise_for_status()

        async def year(number: str, **query: Any) -> Any:
            start = (end - YEAR).isoformat()
            found = await get(
                "/api/series/data", series=number, **{"from": start}, to=end.isoformat(), **query
            )
            assert len(found.content) > 1000

        async def month_of_all() -> None:
            found = await get(
                "/api/series/consumption", series=ids, unit="month",
                **{"from": month[0].isoformat(), "to": month[1].isoformat()},
            )  # fmt: skip
            assert found.content.count(b'"total"') == 2 * METERS

        async def view() -> None:
            async with db.tenant_transaction(pool, TENANT, readonly=True) as connection:
                rows = await connection.fetch(
                    "select * from tds_new_consumo_mensal where mes_referencia = $1", month[0]
                )
            assert len(rows) == METERS

        async def day() -> None:
            await get(
                "/api/series/data",
                series=rng.choice(ids),
                **{"from": (end - DAY).isoformat()},
                to=end.isoformat(),
            )

        async def newest() -> None:
            assert (await get("/api/series/latest")).content.count(b'"age"') == METERS

        found = {
            "a year of hourly values of one point": await timed(times, lambda: year(ids[7], interval="1h")),
            "the same, of any of 20": await timed(times, lambda: year(rng.choice(ids[:20]), interval="1h")),
            "the same, of one not looked at before": await timed(
                min(times, 100), lambda: year(unseen.pop(), interval="1h")
            ),
            "a year of one point on 1000 pixels": await timed(times, lambda: year(rng.choice(ids[:20]))),
            "a day of one point on 1000 pixels": await timed(times, day),
            "consumption of 1,000 meters for a month": await timed(times, month_of_all),
            "tds_new_consumo_mensal, one month, without HTTP": await timed(times, view),
            "latest values of 1,000 points": await timed(times, newest),
        }
    await pool.close()
    return found


async def run(folder: Path, rows: int, seconds: float, times: int) -> bool:
    """Fill (`seconds` > 0) and measure (`times` > 0) on the server in `folder`; whether it is full."""
    server = EmbeddedPostgres(folder / "pg", options={"max_wal_size": "4GB"})
    fresh = not server.data.exists()
    await server.start()
    try:
        pool = await db.open_pool(server.url, minimum=1, maximum=3)
        if fresh:
            await migrate(server.url)
            await prepare(pool, server.url)
        full = await fill(pool, rows, seconds) if seconds else True
        sums = await pool.fetchrow(
            "select sum(rows)::bigint as rows, sum(hours)::bigint as rollup_hours, sum(fill) as fill_seconds,"
            " sum(roll) as rollup_seconds, max(day) as until from bench.filled"
        )
        await pool.close()
        print(json.dumps({key: str(value) for key, value in sums.items()}), flush=True)
        if full and times:
            print(json.dumps(await measure(server.url, times, sums["until"] + DAY), indent=2))
        return full
    finally:
        await server.stop()


def main() -> None:
    """Print the figures as JSON; exit status 3 while there is more to fill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--data", type=Path, help="keep the server's data here")
    parser.add_argument("--seconds", type=float, default=1e9, help="fill no longer than this")
    parser.add_argument("--measure", action="store_true", help="do not fill")
    chosen = parser.parse_args()
    if chosen.data is None:
        with tempfile.TemporaryDirectory(prefix="caudal-bench-") as folder:
            Path(folder).chmod(0o755)
            asyncio.run(run(Path(folder), chosen.rows, chosen.seconds, chosen.times))
        return
    chosen.data.mkdir(parents=True, exist_ok=True, mode=0o755)
    times = chosen.times if chosen.measure else 0
    if not asyncio.run(run(chosen.data, chosen.rows, 0 if chosen.measure else chosen.seconds, times)):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
