"""Telemetry: throughput against plain COPY and against doors that store nothing, latency, fleet, memory."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from bench import stack
from bench.baseline import copy_rate
from bench.load import payload
from caudal.core.postgres import EmbeddedPostgres, free_port
from caudal.core.supervisor import Child, child_environ
from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadFleet, Message

Row = dict[str, Any]
_epoch = iter(range(1, 10_000))


def next_at() -> int:
    """Instants that no other measurement of this run uses: a minute further back each time."""
    return time.time_ns() // 1000 - next(_epoch) * 60_000_000


def port_of(child: Child) -> int:
    return int(child.endpoints["mqtt_url"].rsplit(":", 1)[1])


async def start_publisher(
    port: int, *, messages: int, points: int, tag: str, connections: int = 8, tenant: str = "bench"
) -> asyncio.subprocess.Process:
    """The load generator, as a process of its own; it says `ready` when all is encoded, then publishes."""
    arguments = {
        "port": port, "messages": messages, "points": points, "connections": connections, "tag": tag,
        "at": next_at(), "tenant": tenant,
    }  # fmt: skip
    words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def publish(port: int, *, messages: int, points: int, tag: str, tenant: str = "bench") -> Row:
    """Publish all of it; returns what the load generator measured."""
    process = await start_publisher(port, messages=messages, points=points, tag=tag, tenant=tenant)
    out, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the load generator failed: {errors.decode()}")
    result: Row = json.loads(out)
    return result


@asynccontextmanager
async def null(kind: str, **environ: str) -> AsyncIterator[Child]:
    """A door that stores nothing, as a process."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
        child = Child(kind, ("bench.null", kind), child_environ(os.environ, **environ), Path(folder) / "log")
        try:
            await child.start()
            yield child
        finally:
            await child.stop()


@asynccontextmanager
async def mosquitto() -> AsyncIterator[int]:
    """Mosquitto on a free port, without a bound on its queues; yields the port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="caudal-bench-mosquitto-") as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n"
            "max_queued_messages 0\nmax_queued_bytes 0\nlog_dest none\n"
        )
        binary = "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else "mosquitto"
        process = await asyncio.create_subprocess_exec(binary, "-c", str(config))
        try:
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
            yield port
        finally:
            process.terminate()
            await process.wait()


async def throughput(server: EmbeddedPostgres, points: int, messages: int, rounds: int = 3) -> list[Row]:
    """Points a second through the endpoint against COPY, best of `rounds` of each, taken in turn."""
    control = await asyncpg.connect(server.url)
    copy = door = none = 0.0
    cost = 0.0
    async with stack.ingest(server.url) as child, null("endpoint") as bare:
        tag = f"t{points}-"
        await publish(port_of(child), messages=1600, points=points, tag=tag)
        for turn in range(rounds):
            await stack.settle(control)
            first = 100_000_000 + 10_000_000 * points + turn * 100_000
            copy = max(
                copy,
                await copy_rate(
                    server.url, points=points, messages=messages, connections=2, batch=800, first=first
                ),
            )
            await stack.settle(control)
            before = stack.cpu(child.pid or 0)
            done = await publish(port_of(child), messages=messages, points=points, tag=tag)
            if done["points"] / done["seconds"] > door:
                door = done["points"] / done["seconds"]
                cost = (stack.cpu(child.pid or 0) - before) / done["messages"] * 1e6
            done = await publish(port_of(bare), messages=messages * 2, points=points, tag=tag)
            none = max(none, done["points"] / done["seconds"])
        now, peak = stack.memory(child.pid or 0)
    await control.close()
    return [
        {
            "what": f"endpoint, QoS 1, {points} points a message",
            "points_per_second": round(door),
            "messages_per_second": round(door / points),
            "copy_rows_per_second": round(copy),
            "against_copy": round(door / copy, 3),
            "null_messages_per_second": round(none / points),
            "against_null": round(door / none, 3),
            "python_us_per_message": round(cost, 1),
            "memory_mb": round(now),
            "memory_peak_mb": round(peak),
        }
    ]


async def through_broker(server: EmbeddedPostgres, points: int, messages: int, copy: float) -> list[Row]:
    """Points a second through Mosquitto and the subscriber, and through one that does nothing."""
    control = await asyncpg.connect(server.url)
    tag = f"s{points}-"
    with tempfile.TemporaryDirectory(prefix="caudal-bench-state-") as state:
        async with mosquitto() as port:
            url = f"mqtt://127.0.0.1:{port}"
            flag = Path(state) / "done"
            async with null("subscriber", MQTT_URL=url, COUNT_TO=str(messages), COUNT_FILE=str(flag)):
                await asyncio.sleep(0.5)
                finished = asyncio.create_task(_touched(flag))
                done = await publish(port, messages=messages, points=points, tag=tag)
                # The generator prepares before it sends; only its own clock knows when it began.
                none = messages * points / (await finished - done["began"])
        async with mosquitto() as port:
            url = f"mqtt://127.0.0.1:{port}"
            async with stack.ingest(server.url, MQTT_URL=url, STATE_DIR=state):
                await asyncio.sleep(0.5)
                await publish(port, messages=1600, points=points, tag=tag)
                await asyncio.sleep(1)
                await stack.settle(control)
                before = await _messages(control)
                stored = asyncio.create_task(_until(control, before + messages))
                done = await publish(port, messages=messages, points=points, tag=tag)
                ended = await stored
                sent_at = done["began"]
                rate = messages * points / (ended - sent_at)
    await control.close()
    none = max(none, 1.0)
    limit = min(copy, none)
    return [
        {
            "what": f"subscriber behind Mosquitto, QoS 1, {points} points a message",
            "points_per_second": round(rate),
            "copy_rows_per_second": round(copy),
            "idle_subscriber_points_per_second": round(none),
            "against_lower": round(rate / limit, 3),
        }
    ]


async def _messages(control: asyncpg.Connection[Any]) -> int:
    return int(await control.fetchval("select coalesce(sum(messages), 0)::bigint from caudal.ledger"))


async def _touched(flag: Path) -> float:
    """The moment (time.time) at which a file appears."""
    while not flag.exists():
        await asyncio.sleep(0.005)
    return time.time()


async def _until(control: asyncpg.Connection[Any], count: int) -> float:
    """The moment (time.time) from which the ledger counts so many messages."""
    while await _messages(control) < count:
        await asyncio.sleep(0.01)
    return time.time()


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
        await asyncio.sleep(0.02)
    await fleet.close()
    await connection.close()
    return taken


async def flood(server: EmbeddedPostgres, messages: int, seconds: float = 8) -> Row:
    """A quiet tenant's publish to row, alone and while another publishes as fast as it can."""
    async with stack.ingest(server.url) as child:
        port = port_of(child)
        await publish(port, messages=1600, points=10, tag="flood", tenant="flooder")
        await _visible(server.url, port, 1)
        alone = await _visible(server.url, port, seconds)
        # From a process of its own: what shares the probe's loop would be measured with it.
        process = await start_publisher(port, messages=messages, points=10, tag="flood", tenant="flooder")
        assert process.stderr is not None
        await process.stderr.readuntil(b"ready")
        flooded = await _visible(server.url, port, seconds, stop=process)
        out, _ = await process.communicate()
    quiet, busy = _percentiles(alone), _percentiles(flooded)
    done = json.loads(out)
    return {
        "what": "a quiet tenant's publish to row, alone and beside a flooding one",
        "alone_ms": quiet,
        "flooded_ms": busy,
        "p99_ratio": round(busy["p99"] / quiet["p99"], 2),
        "flood_messages_per_second": round(done["messages"] / done["seconds"]),
        "samples": len(flooded),
    }


async def fleet_of(server: EmbeddedPostgres, devices: int = 15_000, seconds: float = 20) -> Row:
    """Connected devices that each publish once a second."""
    async with stack.ingest(server.url) as child:
        fleet = LoadFleet("127.0.0.1", port_of(child), _connects("f", devices), keep=False, window=20)
        await fleet.open()
        sources = [_source(f"f{n:05d}", 3) for n in range(devices)]
        # Every device once, so that registering them is not part of what follows.
        await fleet.run([iter([next(source)]) for source in sources], patience=60)
        fleet.totals.latencies.__init__()  # type: ignore[misc]
        sent, began, before = fleet.totals.sent, time.perf_counter(), stack.cpu(child.pid or 0)
        await fleet.run(sources, rate=devices, seconds=seconds)
        passed = time.perf_counter() - began
        busy = (stack.cpu(child.pid or 0) - before) / passed
        now, peak = stack.memory(child.pid or 0)
        await fleet.close()
    acks = fleet.totals.latencies
    return {
        "what": f"{devices} devices, each once a second, 3 points a message",
        "messages_per_second": round((fleet.totals.sent - sent) / passed),
        "puback_ms": {f"p{p}": round(acks.percentile(p / 100) * 1000, 1) for p in (50, 95, 99)},
        "unacknowledged": fleet.totals.unacked,
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
        full = rows[0]["messages_per_second"]
        copy = {row["what"]: row["copy_rows_per_second"] for row in rows}
        for points, messages in ((10, 20_000), (1, 40_000), (50, 5_000)):
            limit = copy[f"endpoint, QoS 1, {points} points a message"]
            rows += await through_broker(server, points, messages * scale, limit)
            print(rows[-1], flush=True)
        for share in (20, 80):
            rows.append(await latency(server, full * share / 100, share, seconds=4 if quick else 12))
            print(rows[-1], flush=True)
        rows.append(await flood(server, 30_000 if quick else 400_000, seconds=3 if quick else 10))
        print(rows[-1], flush=True)
        rows.append(await fleet_of(server, 3_000 if quick else 15_000, seconds=5 if quick else 20))
        print(rows[-1], flush=True)
        rows.append(await outage(server, seconds=3 if quick else 10))
        print(rows[-1], flush=True)
        control = await asyncpg.connect(server.url)
        counts = await control.fetchrow(
            "select sum(received) as received, sum(stored) as stored, sum(duplicates) as duplicates,"
            " sum(dead) as dead, sum(held) as held, sum(empty) as empty from caudal.ledger"
        )
        rows.append({"what": "ledger of the run", **{key: int(value) for key, value in counts.items()}})
        await control.close()
    return rows
