"""Accepting messages: a second at 64 connections, against the same route storing nothing and against pgbench;
latency at 500 a second; and from the request to the provider on an idle system."""

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

from bench import connectors
from bench.stack import database
from caudal.core import db
from caudal.core.postgres import binaries
from caudal.core.supervisor import Child, child_environ
from caudal.registry.tenants import create_tenant

CONNECTIONS = 64
PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
BARE = "insert into bare(id, content) values (gen_random_uuid(), 'A message of usual length.');\n"


@asynccontextmanager
async def process(url: str, *arguments: str) -> AsyncIterator[str]:
    """One of our processes; the address it announces first."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
        environ = child_environ(
            os.environ, DATABASE_URL=url, CAUDAL_MASTER_KEY=connectors.KEY, API_PORT="0",
            ROUTER_METRICS_PORT="0", RATE_LIMIT_TENANT="1000000", RATE_LIMIT_ADDRESS="0", STATE_DIR=folder,
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


async def to_provider(made: connectors.Bench, base: str, token: str, count: int) -> dict[str, float]:
    """From sending the request to the provider's receipt of the call, one at a time.

    API, router, connector and provider are a process each, as in production; both clocks are this machine's.
    """
    took = []
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
        for number in range(count + count // 10):
            body = {
                "conversation_id": f"idle-{uuid4()}",
                "content": "x",
                "recipient_id": "whatsapp:+5511999998888",
            }
            began = time.time()
            (await client.post("/v1/messages", json=body)).raise_for_status()
            (at,) = await made.calls(1)
            if number >= count // 10:
                took.append((at - began) * 1000)
            # Idle is when nothing of the one before is under way any more.
            await asyncio.sleep(0.05)
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
    seconds, rounds = (3.0, 1) if quick else (8.0, 3)
    return [*await _rates(seconds, rounds), *await _latencies(seconds * 2, 50 if quick else 300)]


async def _rates(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Durable, storing nothing and bare inserts in turn, because a machine changes under us."""
    durable: list[dict[str, float]] = []
    nothing: list[dict[str, float]] = []
    inserts: list[dict[str, Any]] = []
    async with database() as server:
        await _tenant(server.url)
        for _ in range(rounds):
            nothing.append(await saturate(server.url, ("bench.null_accept",), seconds))
            durable.append(await saturate(server.url, ("caudal", "api"), seconds))
            inserts.append(await bare(server.url, seconds))
    ratios = [one["per_second"] / none["per_second"] for one, none in zip(durable, nothing, strict=True)]
    rows: list[dict[str, Any]] = [
        {
            "what": f"accepted, durable, {CONNECTIONS} connections, {rounds} rounds",
            "per_second": " ".join(f"{one['per_second']:.0f}" for one in durable),
            **{
                name: statistics.median(one[name] for one in durable)
                for name in ("p50_ms", "p95_ms", "p99_ms")
            },
            "errors": sum(one["errors"] for one in durable),
        },
        {
            "what": "the same route, storing nothing",
            "per_second": " ".join(f"{one['per_second']:.0f}" for one in nothing),
        },
        {
            "what": "ratio (at least 0.6)",
            "ratio": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
        },
    ]
    what = f"pgbench, bare insert, {CONNECTIONS} clients"
    if "left_out" in inserts[0]:
        return [*rows, {"what": what, **inserts[0]}]
    return [*rows, {"what": what, "per_second": " ".join(f"{one['per_second']}" for one in inserts)}]


async def _latencies(seconds: float, count: int) -> list[dict[str, Any]]:
    """On a database of their own: nothing waits for a router here but what is measured."""
    rows: list[dict[str, Any]] = []
    async with connectors.prepared() as made:
        await made.provider(0)
        async with (
            process(made.url, "caudal", "api") as base,
            process(made.url, "caudal", "router"),
            made.workers(1),
        ):
            token = await sign_in(base)
            idle = await to_provider(made, base, token, count)
            rows.append({"what": "accept to provider, idle (p50 at most 30 ms)", **idle})
        async with process(made.url, "caudal", "api") as base:
            token = await sign_in(base)
            await paced(base, token, 100, 1)
            latency = await paced(base, token, 500, seconds)
            rows.append({"what": "accept at 500 a second (p99 at most 20 ms)", **latency})
    return rows


async def _tenant(url: str) -> None:
    pool = await db.open_pool(url, minimum=1, maximum=1)
    await create_tenant(pool, "default")
    await pool.close()
