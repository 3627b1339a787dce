"""The API: a page of the registry against plain SQL, and what a tenant that floods costs another.

Needs `wrk`. A real `caudal api` on a database with 10,000 devices; plain SQL is the same query, for the same
tenant, through a pool of the same size and role.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench import stack
from bench.telemetry import Row
from caudal.core import db
from caudal.core.supervisor import Child, child_environ
from caudal.registry import devices
from caudal.registry.permissions import NOT_FOR_KEYS, Action

CONNECTIONS = 8
PAGE = "/api/devices?limit=50"

_PLANT = """
with t as (insert into caudal.tenant(name) values ($1) returning id),
d as (insert into caudal.device(tenant_id, name) select id, 'd' || n from t, generate_series(1, $2::int) n),
q as (insert into caudal.quota(tenant_id, requests_per_second) select id, $5::int from t)
insert into caudal.api_key(tenant_id, name, prefix, digest, scopes) select id, 'bench', $1, $3, $4 from t"""


@asynccontextmanager
async def _api(url: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="caudal-bench-api-") as folder:
        environ = {
            "DATABASE_URL": url, "API_PORT": "0", "CAUDAL_MASTER_KEY": "x" * 40, "RATE_LIMIT_TENANT": "0",
            "FILES_URL": f"{folder}/files",
        }  # fmt: skip
        child = Child("api", ("caudal", "api"), child_environ(os.environ, **environ), Path(folder) / "log")
        try:
            await child.start()
            yield child.endpoints["api_url"]
        finally:
            await child.stop()


async def _plant(pool: asyncpg.Pool[Any], tenant: str, count: int, rate: int | None) -> str:
    key = f"caudal_{tenant}_{'s' * 43}"
    scopes = [str(action) for action in Action if action not in NOT_FOR_KEYS]
    digest = hashlib.sha256(key.encode()).digest()
    await pool.execute(_PLANT, tenant, count, digest, scopes, rate, timeout=120)
    return key


async def _wrk(url: str, key: str, seconds: float, connections: int = CONNECTIONS) -> tuple[float, int]:
    """(requests a second, how many were refused)."""
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-H", f"X-API-Key: {key}", url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    text = (await process.communicate())[0].decode()
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found is not None, text
    return float(found[1]), int(refused[1]) if refused else 0


async def _plain(pool: asyncpg.Pool[Any], tenant: str, seconds: float) -> float:
    """Pages a second of the query alone, as many at a time as there are connections."""
    until = time.perf_counter() + seconds

    async def work() -> int:
        done = 0
        while time.perf_counter() < until:
            async with db.tenant_transaction(pool, tenant, readonly=True) as connection:
                rows = await connection.fetch(f"{devices.SELECT} order by d.id limit 51")
                assert len(rows) == 51
            done += 1
        return done

    return sum(await asyncio.gather(*(work() for _ in range(CONNECTIONS)))) / seconds


async def _latencies(url: str, key: str, seconds: float) -> list[float]:
    """Milliseconds of requests that follow each other, a hundredth of a second apart."""
    found = []
    async with httpx.AsyncClient(headers={"X-API-Key": key}) as client:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            answer = await client.get(url)
            found.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200
            await asyncio.sleep(0.01)
    return sorted(found)


def _p(values: list[float], share: float) -> float:
    return round(values[min(len(values) - 1, int(len(values) * share))], 1)


async def run(quick: bool) -> list[Row]:
    """The suite."""
    seconds, rounds = (2.0, 1) if quick else (6.0, 3)
    async with stack.database() as server:
        owner = await db.open_pool(server.url, minimum=1, maximum=1)
        key = await _plant(owner, "acme", 1_000 if quick else 10_000, None)
        flooder = await _plant(owner, "flooder", 100, 100)
        await owner.close()
        pool = await db.open_pool(server.url, minimum=CONNECTIONS, maximum=CONNECTIONS, role="caudal_app")
        async with _api(server.url) as url:
            await _wrk(url + PAGE, key, 1)
            pages, plain = [], []
            for _ in range(rounds):
                plain.append(await _plain(pool, "acme", seconds))
                rate, refused = await _wrk(url + PAGE, key, seconds)
                assert not refused
                pages.append(rate)
            alone = await _latencies(url + PAGE, key, seconds)
            flood = asyncio.create_task(_wrk(url + PAGE, flooder, seconds + 1, connections=50))
            await asyncio.sleep(0.5)
            beside = await _latencies(url + PAGE, key, seconds)
            flooded, refused = await flood
        await pool.close()
    return [
        {
            "what": "a page of 50 devices, against the same query through a pool of the same size",
            "pages_per_second": round(statistics.median(pages)),
            "plain_per_second": round(statistics.median(plain)),
            "ratio": round(statistics.median(p / q for p, q in zip(pages, plain, strict=True)), 2),
            "ratios": [round(p / q, 2) for p, q in zip(pages, plain, strict=True)],
        },
        {
            "what": "a tenant's requests, alone and beside a flood on 50 connections with a quota of 100",
            "alone_ms": {"p50": _p(alone, 0.5), "p99": _p(alone, 0.99)},
            "flooded_ms": {"p50": _p(beside, 0.5), "p99": _p(beside, 0.99)},
            "p99_ratio": round(_p(beside, 0.99) / _p(alone, 0.99), 2),
            "flood_per_second": round(flooded),
            "flood_refused": refused,
            "samples": len(beside),
        },
    ]
