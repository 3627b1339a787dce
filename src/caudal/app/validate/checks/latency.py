"""How long a device waits for its acknowledgement, and a reader for the row, at a modest steady rate."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import msgspec

from caudal.app.validate.context import Context, now, percentiles, v1
from caudal.app.validate.report import Area, Finding
from caudal.app.validate.witness import witness

AREA: Final[Area] = "telemetry"
NUMBER = 8
TITLE = "Latency"
RATE = 100.0
SECONDS = 5.0


async def run(context: Context, finding: Finding) -> None:
    device = context.device("latency")
    topic = context.topic(device)
    line = await context.line("latency")
    await context.send(topic, v1(now(), {"first": 1}))  # registering a device is no part of it
    rate = min(RATE, context.load.rate)
    loop = asyncio.get_running_loop()
    base, began = now(), loop.time()
    futures = []
    async with witness(context) as watching:
        for number in range(int(rate * SECONDS)):
            await asyncio.sleep(began + number / rate - loop.time())
            at = base + timedelta(milliseconds=number)
            futures.append(line.publish(topic, msgspec.json.encode(v1(at, {"n": number}))))
            watching.watch(futures[-1], device, "n", at)
        acks = [await context.settled(future) for future in futures]
    finding.measured |= {"samples": len(acks)}
    finding.measured |= percentiles([ack.seconds for ack in acks], "puback")
    finding.measured |= percentiles(watching.readable, "readable")
    slow = finding.measured["puback_p95_ms"]
    finding.expect(
        float(slow) <= context.load.latency_ms,
        f"95 of 100 acknowledgements within {slow} ms; {context.load.latency_ms:.0f} are allowed.",
    )
    watching.judge(finding)
    finding.sentence = (
        f"Publish to PUBACK p50 {finding.measured['puback_p50_ms']} ms, p95 {slow} ms,"
        f" p99 {finding.measured['puback_p99_ms']} ms, of {len(acks)}."
    )
