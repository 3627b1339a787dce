"""A burst that nobody waits for: everything is stored in the end, and a quiet device not held up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import perf_counter
from typing import Final

import msgspec

from caudal.app.validate.context import Context, now, percentiles, v1
from caudal.app.validate.line import Ack, Line
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 10
TITLE = "Backpressure"
SMALLEST, LARGEST = 1000, 20_000
QUIET_SECONDS = 0.05
DRAIN_SECONDS = 60.0

COUNT = "select count(*) from ts_measure where device_id = $1"


async def run(context: Context, finding: Finding) -> None:
    size = int(min(max(SMALLEST, context.load.rate * context.load.seconds), LARGEST))
    device, quiet = context.device("burst"), context.device("quiet")
    # Version 3.1.1: it has no receive maximum that would have us wait.
    line = await context.line("burst", version=4)
    other = await context.line("quiet")
    for name in (device, quiet):
        await context.send(context.topic(name), v1(now() - timedelta(hours=1), {"n": -1}))
    base = now()
    topic = context.topic(device)
    began = perf_counter()
    futures = [
        line.publish(topic, msgspec.json.encode(v1(base + timedelta(microseconds=100 * n), {"n": n})))
        for n in range(size)
    ]
    burst = asyncio.gather(*futures)
    asking = asyncio.create_task(_queue(context, burst), name="queue size")
    waits = await _meanwhile(context, other, quiet, burst)
    pong = await asyncio.wait_for(line.ping(), DRAIN_SECONDS)
    acks = await burst
    took = perf_counter() - began
    context.acknowledged += len(acks)
    stored = await context.ground.reader.fetchval(COUNT, device) - 1
    if context.load.broker:
        stored = await context.eventually(
            lambda: context.ground.reader.fetchval(COUNT, device), lambda n: n > size, 30.0
        ) - 1  # fmt: skip
    largest = await asking
    left = await context.eventually(
        context.counters, lambda c: c.get("ingest_queue_size", 0) < size / 10, 10.0
    )
    finding.measured |= {
        "burst": size, "drained_seconds": round(took, 2), "per_second": round(size / took, 1),
        "stored": stored, "largest_queue": largest, "queue_afterwards": left.get("ingest_queue_size", -1.0),
        "ping_ms": round(pong * 1000, 2),
    }  # fmt: skip
    finding.measured |= percentiles(waits, "quiet")
    finding.equal("Refused in the burst", sum(ack.reason >= 0x80 for ack in acks), 0)
    finding.equal("Stored of the burst", stored, size)
    finding.expect(not line.closed.is_set(), "The connection of the burst was closed.")
    finding.expect(
        float(finding.measured.get("quiet_p95_ms", 0)) <= 5 * context.load.latency_ms,
        f"A quiet device waited {finding.measured.get('quiet_p95_ms')} ms (p95) during the burst.",
    )
    finding.expect(left.get("ingest_queue_size", -1) < size / 10, "The queue did not empty.")
    finding.sentence = (
        f"{size} messages at once, all stored after {took:.1f} s; a quiet device waited"
        f" {finding.measured.get('quiet_p95_ms')} ms (p95) meanwhile."
    )


async def _meanwhile(
    context: Context, line: Line, device: str, burst: asyncio.Future[list[Ack]]
) -> list[float]:
    """What a device that sends now and then waits for, until the burst is through."""
    waits: list[float] = []
    base, began = now(), perf_counter()
    while not burst.done() or not waits:
        if perf_counter() - began > DRAIN_SECONDS:
            burst.cancel()
            break
        at = base + timedelta(milliseconds=len(waits))
        future = line.publish(context.topic(device), msgspec.json.encode(v1(at, {"n": len(waits)})))
        waits.append((await context.settled(future)).seconds)
        await asyncio.wait({burst}, timeout=QUIET_SECONDS)
    return waits


async def _queue(context: Context, burst: asyncio.Future[list[Ack]]) -> float:
    """The largest queue that the gauge showed."""
    largest = 0.0
    while True:
        largest = max(largest, (await context.counters()).get("ingest_queue_size", 0.0))
        if burst.done():
            return largest
        await asyncio.wait({burst}, timeout=0.1)
