"""Accepting messages: a second at 64 connections, against the same route storing nothing and against pgbench;
latency at 500 a second; and from the request to the connector's handler on an idle system."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from bench.stack import database
from caudal.app.messaging import ROLE
from caudal.core import db
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Record
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.worker import LaneWorker
from caudal.core.metrics import Metrics
from caudal.core.postgres import binaries
from caudal.core.supervisor import Child, child_environ
from caudal.messaging import topics
from caudal.registry.tenants import create_tenant

CONNECTIONS = 64
BARE = "insert into bare(id, content) values (gen_random_uuid(), 'A message of usual length.');\n"


@asynccontextmanager
async def process(url: str, *arguments: str) -> AsyncIterator[str]:
    """One of our processes; the address it announces first."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
        environ = child_environ(
            os.environ, DATABASE_URL=url, CAUDAL_MASTER_KEY="x" * 40, API_PORT="0", ROUTER_METRICS_PORT="0",
            RATE_LIMIT_TENANT="1000000", RATE_LIMIT_ADDRESS="0", STATE_DIR=folder,
        )  # fmt: skip
        child = Child(arguments[-1], arguments, environ, Path(folder) / "log")
        try:
            found = await child.start()
            yield next(iter(found.values()))
        finally:
            await child.stop()


async def sign_in(base: str) -> str:
    """A new person's token."""
    name = f"p{uuid4().hex[:10]}"
    person = {"username": name, "password": "secret", "email": f"{name}@example.com"}
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        (await client.post("/auth/register", json=person)).raise_for_status()
        token: str = (await client.post("/auth/token", json=person)).json()["access_token"]
    return token


async def wrk(base: str, token: str, connections: int, seconds: float) -> dict[str, float]:
    """Rate, latencies in ms and errors, as wrk sees them."""
    run = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", "bench/accept.lua", base,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "TOKEN": token},
    )  # fmt: skip
    out, _ = await run.communicate()
    line = next(line for line in out.decode().splitlines() if line.startswith("FIGURES"))
    rate, p50, p95, p99, errors = map(float, line.split()[1:])
    return {"per_second": round(rate), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": errors}


async def saturate(url: str, module: tuple[str, ...], seconds: float) -> dict[str, float]:
    async with process(url, *module) as base:
        token = await sign_in(base)
        await wrk(base, token, CONNECTIONS, 2)
        return await wrk(base, token, CONNECTIONS, seconds)


async def paced(base: str, token: str, rate: int, seconds: float) -> dict[str, float]:
    """Open loop: each message is due at its time, and late answers count from then."""
    took: list[float] = []
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    headers = {"Authorization": f"Bearer {token}"}
    run = uuid4().hex[:8]
    async with httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=30) as client:

        async def one(number: int, due: float) -> None:
            body = {"conversation_id": f"{run}-{number % 500}", "content": "A message of usual length."}
            answer = await client.post("/v1/messages", json=body)
            assert answer.status_code == 202, answer.text
            took.append((time.perf_counter() - due) * 1000)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(one(number, due))
    cut = statistics.quantiles(took, n=100)
    return {"p50_ms": round(cut[49], 2), "p95_ms": round(cut[94], 2), "p99_ms": round(cut[98], 2)}


async def to_connector(url: str, base: str, token: str, count: int) -> dict[str, float]:
    """From sending the request to the outbound record's handler, the router between; one at a time."""
    pool = await db.open_pool(url, minimum=2, maximum=4, role=ROLE)
    log = PostgresLog(pool, url, LogSettings())
    await log.start()
    await log.ensure(topics.topics(12))
    consumer = await log.subscribe([topics.WHATSAPP_OUTBOUND], topics.WHATSAPP_GROUP)
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def handle(_record: Record) -> None:
        await arrived.put(time.perf_counter())

    lanes = asyncio.create_task(LaneWorker(pool, consumer, handle, LogMetrics(Metrics())).run())
    took = []
    async with httpx.AsyncClient(
        base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as client:
        for number in range(count):
            body = {
                "conversation_id": f"idle-{uuid4()}",
                "content": "x",
                "recipient_id": "whatsapp:+5511999998888",
            }
            began = time.perf_counter()
            (await client.post("/v1/messages", json=body)).raise_for_status()
            at = await asyncio.wait_for(arrived.get(), 10)
            if number >= count // 10:
                took.append((at - began) * 1000)
    lanes.cancel()
    await asyncio.wait([lanes])
    await consumer.close()
    await log.stop()
    await pool.close()
    cut = statistics.quantiles(took, n=100)
    return {"p50_ms": round(cut[49], 2), "p95_ms": round(cut[94], 2), "p99_ms": round(cut[98], 2)}


async def bare(url: str, seconds: float) -> dict[str, Any]:
    """pgbench: the bare insert, prepared, with as many clients."""
    pgbench = binaries() / "pgbench"
    program = str(pgbench) if pgbench.exists() else shutil.which("pgbench")
    if program is None:
        return {"left_out": "this machine lacks pgbench"}
    pool = await db.open_pool(url, minimum=1, maximum=1)
    await pool.execute("create table if not exists bare(id uuid primary key, content text not null)")
    await pool.close()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(BARE)
        script.flush()
        run = await asyncio.create_subprocess_exec(
            program, "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "2", "-f", script.name,
            "-T", str(max(1, round(seconds))), url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        out, _ = await run.communicate()
    line = next(line for line in out.decode().splitlines() if line.startswith("tps"))
    return {"per_second": round(float(line.split()[2]))}


async def run(quick: bool) -> list[dict[str, Any]]:
    """The suite's rows."""
    if shutil.which("wrk") is None:
        return [{"what": "accept", "left_out": "this machine lacks wrk"}]
    seconds = 3.0 if quick else 15.0
    rows: list[dict[str, Any]] = []
    async with database() as server:
        pool = await db.open_pool(server.url, minimum=1, maximum=1)
        await create_tenant(pool, "default")
        await pool.close()
        # Before and after, because other work on the machine changes under us.
        nothing = [await saturate(server.url, ("bench.null_accept",), seconds)]
        durable = await saturate(server.url, ("caudal", "api"), seconds)
        nothing.append(await saturate(server.url, ("bench.null_accept",), seconds))
        limit = statistics.mean(one["per_second"] for one in nothing)
        rows.append({"what": f"accepted, durable, {CONNECTIONS} connections", **durable})
        rows.append({"what": "the same route, storing nothing", "per_second": round(limit)})
        rows.append({"what": "ratio (at least 0.6)", "ratio": round(durable["per_second"] / limit, 2)})
        rows.append(
            {"what": f"pgbench, bare insert, {CONNECTIONS} clients", **await bare(server.url, seconds)}
        )
        async with process(server.url, "caudal", "api") as base:
            token = await sign_in(base)
            await paced(base, token, 100, 1)
            latency = await paced(base, token, 500, seconds)
            rows.append({"what": "accept at 500 a second (p99 at most 20 ms)", **latency})
            async with process(server.url, "caudal", "router"):
                idle = await to_connector(server.url, base, token, 50 if quick else 300)
            rows.append({"what": "accept to connector, idle (p50 at most 30 ms)", **idle})
    return rows
