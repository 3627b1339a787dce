"""Telemetry's rates: points a second against plain COPY and against doors that store nothing."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

import asyncpg

from bench import stack
from bench.baseline import Copied, copy_rate
from bench.doors import Row, mosquitto, null, port_of, publish
from caudal.core.postgres import EmbeddedPostgres, free_port


async def throughput(server: EmbeddedPostgres, points: int, messages: int, rounds: int = 3) -> list[Row]:
    """Points a second through the endpoint against COPY, best of `rounds` of each, taken in turn."""
    control = await asyncpg.connect(server.url)
    copy, bare_cost, cost = Copied(0.0, 0.0), 0.0, 0.0
    door = none = 0.0
    async with stack.ingest(server.url) as child, null("endpoint") as bare:
        tag = f"t{points}-"
        await publish(port_of(child), messages=1600, points=points, tag=tag)
        for turn in range(rounds):
            await stack.settle(control)
            first = 100_000_000 + 10_000_000 * points + turn * 100_000
            copied = await copy_rate(
                server, points=points, messages=messages, connections=2, batch=800, first=first
            )
            copy = max(copy, copied, key=attrgetter("rate"))
            await stack.settle(control)
            before = stack.cpu(child.pid or 0)
            done = await publish(port_of(child), messages=messages, points=points, tag=tag)
            if done["points"] / done["seconds"] > door:
                door = done["points"] / done["seconds"]
                cost = (stack.cpu(child.pid or 0) - before) / done["messages"] * 1e6
            before = stack.cpu(bare.pid or 0)
            done = await publish(port_of(bare), messages=messages * 2, points=points, tag=tag)
            if done["points"] / done["seconds"] > none:
                none = done["points"] / done["seconds"]
                used = stack.cpu(bare.pid or 0) - before + done["cpu"]
                bare_cost = used / done["messages"] * 1e6
        now, peak = stack.memory(child.pid or 0)
    await control.close()
    limit = len(os.sched_getaffinity(0)) / (bare_cost + points * copy.cost) * 1e6
    return [
        {
            "what": f"endpoint, QoS 1, {points} points a message",
            "points_per_second": round(door),
            "messages_per_second": round(door / points),
            "copy_rows_per_second": round(copy.rate),
            "copy_cpu_us_per_row": round(copy.cost, 2),
            "against_copy": round(door / copy.rate, 3),
            "null_messages_per_second": round(none / points),
            "null_and_publisher_cpu_us_per_message": round(bare_cost, 2),
            "against_null": round(door / none, 3),
            "limit_of_the_cores_messages_per_second": round(limit),
            "of_that_limit": round(door / points / limit, 3),
            "python_us_per_message": round(cost, 1),
            "memory_mb": round(now),
            "memory_peak_mb": round(peak),
        }
    ]


async def through_broker(server: EmbeddedPostgres, points: int, messages: int, copy: Copied) -> list[Row]:
    """Points a second through Mosquitto and the subscriber, and through one that does nothing."""
    control = await asyncpg.connect(server.url)
    tag = f"s{points}-"
    with tempfile.TemporaryDirectory(prefix="caudal-bench-state-") as state:
        async with mosquitto() as (port, broker):
            url = f"mqtt://127.0.0.1:{port}"
            flag = Path(state) / "done"
            async with null(
                "subscriber", MQTT_URL=url, COUNT_TO=str(messages), COUNT_FILE=str(flag)
            ) as child:
                before = stack.cpu(broker) + stack.cpu(child.pid or 0)
                finished = asyncio.create_task(_touched(flag))
                done = await publish(port, messages=messages, points=points, tag=tag)
                # The generator prepares before it sends; only its own clock knows when it began.
                none = messages * points / (await finished - done["began"])
                used = stack.cpu(broker) + stack.cpu(child.pid or 0) - before + done["cpu"]
                bare_cost = used / messages * 1e6
        async with mosquitto() as (port, _):
            url = f"mqtt://127.0.0.1:{port}"
            async with stack.ingest(server.url, MQTT_URL=url, STATE_DIR=state) as child:
                before = await _messages(control)
                await publish(port, messages=1600, points=points, tag=tag)
                await _until(control, before + 1600)
                await stack.settle(control)
                stored = asyncio.create_task(_until(control, before + 1600 + messages))
                done = await publish(port, messages=messages, points=points, tag=tag)
                rate = messages * points / (await stored - done["began"])
    await control.close()
    none = max(none, 1.0)
    limit = len(os.sched_getaffinity(0)) / (bare_cost + points * copy.cost) * 1e6
    return [
        {
            "what": f"subscriber behind Mosquitto, QoS 1, {points} points a message",
            "points_per_second": round(rate),
            "copy_rows_per_second": round(copy.rate),
            "idle_subscriber_points_per_second": round(none),
            "against_lower": round(rate / min(copy.rate, none), 3),
            "broker_idle_subscriber_and_publisher_cpu_us_per_message": round(bare_cost, 2),
            "limit_of_the_cores_points_per_second": round(points * limit),
            "of_that_limit": round(rate / points / limit, 3),
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


async def shared_port(server: EmbeddedPostgres, points: int, messages: int) -> Row:
    """Points a second through two processes of ingest that listen on one port (`caudal up --ingest 2`)."""
    control = await asyncpg.connect(server.url)
    port, tag = str(free_port()), f"d{points}-"
    first, second = stack.ingest(server.url, MQTT_PORT=port), stack.ingest(server.url, MQTT_PORT=port)
    async with first as one, second as two:
        children = (one, two)
        await publish(int(port), messages=1600, points=points, tag=tag)
        await stack.settle(control)
        before = [stack.cpu(child.pid or 0) for child in children]
        done = await publish(int(port), messages=messages, points=points, tag=tag)
        used = [stack.cpu(child.pid or 0) - was for child, was in zip(children, before, strict=True)]
    await control.close()
    return {
        "what": f"two endpoints on one port, QoS 1, {points} points a message",
        "points_per_second": round(done["points"] / done["seconds"]),
        "messages_per_second": round(done["messages"] / done["seconds"]),
        # The system deals connections out by chance: with eight, one may have most of them.
        "share_of_the_less_busy": round(min(used) / sum(used), 2),
        "python_us_per_message": round(sum(used) / done["messages"] * 1e6, 1),
    }
