"""Telemetry: throughput against plain COPY and against doors that store nothing, latency, fleet, memory."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import asyncpg

from bench import stack
from bench.baseline import Copied
from bench.doors import port_of, publish, start_publisher
from bench.first_row import demo
from bench.load import payload
from bench.rates import shared_port, through_broker, throughput
from caudal.core.postgres import EmbeddedPostgres
from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadFleet, Message

Row = dict[str, Any]


def _source(tag: str, points: int, *, tenant: str = "bench") -> Iterator[Message]:
    """A device's messages, each measured now; made as cheaply as can be, for the machine is shared."""
    topic = f"traksense/{tenant}/site/{tag}/telem"
    inside = payload(points, time.time_ns() // 1000).split(b",", 2)[2]
    while True:
        at = time.time_ns() // 1000
        yield topic, b'{"schema":"v1","ts":"%s.%06dZ",%s' % (_stamp(at // 1_000_000), at % 1_000_000, inside)


@functools.lru_cache(4)
def _stamp(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()


def _connects(tag: str, count: int) -> list[pk.Connect]:
    return [pk.Connect(client_id=f"{tag}{n}", keep_alive=60, version=4) for n in range(count)]


async def latency(server: EmbeddedPostgres, rate: float, share: int, seconds: float = 10) -> Row:
    """Publish to PUBACK and to visible row at `rate` messages a second of 10 points."""
    async with stack.ingest(server.url) as child:
        fleet = LoadFleet("127.0.0.1", port_of(child), _connects(f"l{share}-", 50), keep=False)
        await fleet.open()
        sources = [_source(f"l{share}-{n:03d}", 10) for n in range(50)]
        await fleet.run([iter([next(source)]) for source in sources])
        fleet.totals.latencies.__init__()  # type: ignore[misc]
        seen = asyncio.create_task(_visible(server.url, port_of(child), seconds))
        await fleet.run(sources, rate=rate, seconds=seconds)
        visible = await seen
        await fleet.close()
    acks = fleet.totals.latencies
    return {
        "what": f"latency at {share}% of the endpoint's rate, 10 points a message",
        "messages_per_second": round(fleet.totals.sent / seconds),
        "puback_ms": {f"p{p}": round(acks.percentile(p / 100) * 1000, 1) for p in (50, 95, 99)},
        "visible_row_ms": _percentiles(visible),
        "visible_samples": len(visible),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"p{p}": round(ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] * 1000, 1)
        for p in (50, 95, 99)
    }


async def _visible(
    url: str, port: int, seconds: float, *, stop: asyncio.subprocess.Process | None = None
) -> list[float]:
    """From a publish of a device of its own to the moment another connection sees its row.

    For `seconds`, or until `stop` has ended.
    """
    connection = await asyncpg.connect(url)
    fleet = LoadFleet("127.0.0.1", port, _connects("probe", 1), keep=False)
    await fleet.open()
    topic = "traksense/bench/site/probe/telem"
    at = time.time_ns() // 1000
    await fleet.run([[(topic, payload(1, at))]])
    series = await connection.fetchval(
        "select r.id from caudal.series r join caudal.device d on d.id = r.device_id where d.name = 'probe'"
    )
    look = await connection.prepare(
        "select 1 from caudal.sample where series = $1"
        " and ts = 'epoch'::timestamptz + $2::bigint * interval '1 microsecond'"
    )
    taken = []
    until = time.perf_counter() + seconds
    client = fleet.clients[0]
    client.credit = float("inf")
    while time.perf_counter() < until and (stop is None or stop.returncode is None):
        at = time.time_ns() // 1000
        began = time.perf_counter()
        client.feed([(topic, payload(1, at))])
        while not await look.fetchval(series, at):
            await asyncio.sleep(0.0005)
        taken.append(time.perf_counter() - began)
        await client.finished()
        await asyncio.sleep(0.005)
    await fleet.close()
    await connection.close()
    return taken


async def flood(
    server: EmbeddedPostgres, messages: int, seconds: float = 15, quota: int | None = None
) -> Row:
    """A quiet tenant's publish to row, alone and while another publishes as fast as it can.

    Alone before and after, so that whatever else changes meanwhile is in both. `quota` is what the
    other one may publish a second; without one it takes what the machine gives.
    """
    async with stack.ingest(server.url) as child:
        port = port_of(child)
        await publish(port, messages=1600, points=10, tag="flood", tenant="flooder")
        await _limit(server.url, "flooder", quota)
        await _visible(server.url, port, 2)
        alone = await _visible(server.url, port, seconds / 2)
        before = await _count(server.url)
        # From a process of its own: what shares the probe's loop would be measured with it.
        process = await start_publisher(port, messages=messages, points=10, tag="flood", tenant="flooder")
        assert process.stderr is not None
        await process.stderr.readuntil(b"ready")
        began = time.perf_counter()
        flooded = await _visible(server.url, port, seconds, stop=process)
        took = time.perf_counter() - began
        if process.returncode is None:
            process.terminate()
        await process.communicate()
        await stack.drained(child)
        came = await _count(server.url) - before - len(flooded)
        alone += await _visible(server.url, port, seconds / 2)
    quiet, busy = _percentiles(alone), _percentiles(flooded)
    return {
        "what": f"a quiet tenant's publish to row, alone and beside a flood quota {quota or 'none'}",
        "alone_ms": quiet,
        "alone_samples": len(alone),
        "flooded_ms": busy,
        "flooded_samples": len(flooded),
        "p99_ratio": round(busy["p99"] / quiet["p99"], 2),
        "flood_messages_per_second": round(came / took),
    }


async def _limit(url: str, tenant: str, quota: int | None) -> None:
    """Set a tenant's quota of messages a second."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "insert into caudal.quota (tenant_id, messages_per_second)"
        " select id, $2 from caudal.tenant where name = $1"
        " on conflict (tenant_id) do update set messages_per_second = excluded.messages_per_second",
        tenant, quota,
    )  # fmt: skip
    await connection.close()


async def _count(url: str) -> int:
    """Messages that the ledger has counted."""
    connection = await asyncpg.connect(url)
    counted: int = await connection.fetchval("select coalesce(sum(messages), 0)::bigint from caudal.ledger")
    await connection.close()
    return counted


async def fleet_of(server: EmbeddedPostgres, devices: int = 15_000, seconds: float = 20) -> Row:
    """Connected devices that each publish once a second, after five seconds of it that are not counted."""
    async with stack.ingest(server.url) as child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.fleet", "--port", str(port_of(child)), "--devices", str(devices),
            "--seconds", str(seconds),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        await process.stderr.readuntil(b"ready")
        began, before = time.perf_counter(), stack.cpu(child.pid or 0)
        out, errors = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the fleet failed: {errors.decode()}")
        busy = (stack.cpu(child.pid or 0) - before) / (time.perf_counter() - began)
        now, peak = stack.memory(child.pid or 0)
    found: Row = json.loads(out)
    return {
        "what": f"{devices} devices, each once a second, 3 points a message",
        "messages_per_second": round(found["messages"] / found["seconds"]),
        "puback_ms": found["puback_ms"],
        "sent_late_ms": found["late_ms"],
        "unacknowledged": found["unacknowledged"],
        "core_share": round(busy, 2),
        "memory_mb": round(now),
        "memory_peak_mb": round(peak),
    }


async def outage(server: EmbeddedPostgres, seconds: float = 10) -> Row:
    """Memory while the database is stopped under full load, and whether everything is there afterwards."""
    async with stack.ingest(server.url) as child:
        fleet = LoadFleet("127.0.0.1", port_of(child), _connects("o", 100), window=1000)
        await fleet.open()
        running = asyncio.create_task(
            fleet.run([_source(f"o{n:03d}", 10) for n in range(100)], seconds=seconds + 8, patience=60)
        )
        await asyncio.sleep(3)
        await server.stop()
        await asyncio.sleep(seconds)
        highest = stack.memory(child.pid or 0)[1]
        await server.start()
        totals = await running
        await fleet.close()
        peak = stack.memory(child.pid or 0)[1]
    return {
        "what": f"database stopped for {seconds:.0f} s under full load",
        "memory_peak_while_stopped_mb": round(highest),
        "memory_peak_mb": round(peak),
        "sent": totals.sent,
        "unacknowledged_in_the_end": totals.unacked,
        "connections_lost": totals.lost,
    }


async def run(quick: bool) -> list[Row]:
    """Everything; `quick` for a first look, with a tenth of the load."""
    scale = 1 if quick else 6
    rows: list[Row] = []
    async with stack.database() as server:
        for points, messages in ((10, 24_000), (1, 60_000), (50, 6_000)):
            rows += await throughput(server, points, messages * scale, rounds=1 if quick else 3)
            print(rows[-1], flush=True)
        single = rows[:]
        rows.append(await shared_port(server, 1, 60_000 * scale))
        print(rows[-1], flush=True)
        full = rows[0]["messages_per_second"]
        copied = [Copied(row["copy_rows_per_second"], row["copy_cpu_us_per_row"]) for row in single]
        for copy, points, messages in zip(copied, (10, 1, 50), (20_000, 40_000, 5_000), strict=True):
            rows += await through_broker(server, points, messages * scale, copy)
            print(rows[-1], flush=True)
        for share in (20, 80):
            rows.append(await latency(server, full * share / 100, share, seconds=4 if quick else 12))
            print(rows[-1], flush=True)
        for quota in (None, 1000):
            rows.append(await flood(server, 30_000 if quick else 600_000, 3 if quick else 15, quota))
            print(rows[-1], flush=True)
        rows.append(await _ledger(server, "ledger of the run so far"))
    # Each in a database of its own: what came before, and a tenant's bound on series, would be measured too.
    async with stack.database() as server:
        rows.append(await fleet_of(server, 3_000 if quick else 15_000, seconds=5 if quick else 20))
        print(rows[-1], flush=True)
        rows.append(await _ledger(server, "ledger of the fleet"))
    async with stack.database() as server:
        rows.append(await outage(server, seconds=3 if quick else 10))
        print(rows[-1], flush=True)
        rows.append(await _ledger(server, "ledger of the outage"))
    rows.append(await demo())
    print(rows[-1], flush=True)
    return rows


async def _ledger(server: EmbeddedPostgres, what: str) -> Row:
    control = await asyncpg.connect(server.url)
    counts = await control.fetchrow(
        "select sum(received) as received, sum(stored) as stored, sum(duplicates) as duplicates,"
        " sum(dead) as dead, sum(held) as held, sum(empty) as empty from caudal.ledger"
    )
    await control.close()
    return {"what": what, **{key: int(value) for key, value in dict(counts or {}).items()}}
