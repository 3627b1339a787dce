"""What a measurement puts in front of ingest, or in its place: publishers, null doors, a broker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from caudal.core.postgres import free_port
from caudal.core.supervisor import Child, child_environ

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
async def mosquitto() -> AsyncIterator[tuple[int, int]]:
    """Mosquitto on a free port, without a bound on its queues; yields the port and its process id."""
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
            yield port, process.pid
        finally:
            process.terminate()
            await process.wait()
