"""A steady rate for ten seconds or more; what is acknowledged is there from its PUBACK on; losses counted."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from time import perf_counter
from typing import Final

import msgspec

from caudal.app.validate.context import Context, now, v1
from caudal.app.validate.line import Ack
from caudal.app.validate.report import Area, Finding
from caudal.app.validate.witness import hold_back, witness

AREA: Final[Area] = "telemetry"
NUMBER = 7
TITLE = "Throughput and loss"
DEVICES = 4
POINTS = 5
TICK = 0.01
ENOUGH = 0.95
"""Part of the rate asked for that must have been reached."""

FOUND = "select device_id, ts from ts_measure where device_id = any($1) and point_id = 'p0'"


async def run(context: Context, finding: Finding) -> None:
    load = context.load
    if not load.broker:
        await hold_back(context, finding)
    devices = [context.device(f"load-{n}") for n in range(DEVICES)]
    lines = [await context.line(f"load-{n}") for n in range(DEVICES)]
    topics = [context.topic(device) for device in devices]
    base = now()
    sent: list[tuple[str, datetime, asyncio.Future[Ack]]] = []
    async with witness(context) as watching:
        began = perf_counter()
        while (elapsed := perf_counter() - began) < load.seconds:
            while len(sent) < elapsed * load.rate:
                number = len(sent)
                # Never two at one instant, however fast.
                at = base + timedelta(microseconds=100 * number)
                points = {f"p{n}": round(20 + n + number % 100 / 7, 3) for n in range(POINTS)}
                lane = number % DEVICES
                future = lines[lane].publish(topics[lane], msgspec.json.encode(v1(at, points)))
                watching.watch(future, devices[lane], "p0", at)
                sent.append((devices[lane], at, future))
            await asyncio.sleep(TICK)
        await asyncio.wait([future for _, _, future in sent], timeout=30)
        took = perf_counter() - began
    acked = {
        (device, at)
        for device, at, future in sent
        if future.done() and future.exception() is None and future.result().reason < 0x80
    }
    context.acknowledged += len(acked)

    async def missing() -> int:
        found = {(row["device_id"], row["ts"]) for row in await context.ground.reader.fetch(FOUND, devices)}
        return len(acked - found)

    # At once: what was acknowledged is there. Behind a broker it may still be on its way.
    lost = await context.eventually(missing, lambda count: count == 0, 30.0 if load.broker else 0.0)
    finding.measured |= {
        "asked_per_second": load.rate, "sent": len(sent), "acknowledged": len(acked),
        "lost": lost, "seconds": round(took, 2), "messages_per_second": round(len(acked) / took, 1),
        "points_per_second": round(len(acked) * POINTS / took, 1),
    }  # fmt: skip
    finding.equal("Messages without an acknowledgement", len(sent) - len(acked), 0)
    finding.expect(not lost, f"{lost} of {len(acked)} acknowledged messages cannot be read.")
    finding.expect(
        len(acked) / took >= ENOUGH * load.rate,
        f"{len(acked) / took:.0f} messages a second, of {load.rate:.0f} asked for.",
    )
    watching.judge(finding)
    finding.sentence = (
        f"{len(acked) / took:.0f} messages ({len(acked) * POINTS / took:.0f} points) a second over"
        f" {took:.1f} s, {lost} lost; {watching.looked} read {'after' if load.broker else 'at'} their PUBACK."
    )
