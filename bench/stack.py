"""What a measurement runs on: a durable PostgreSQL of its own, and our processes as in production."""

from __future__ import annotations

import asyncio
import os
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import Child, child_environ


@asynccontextmanager
async def database() -> AsyncIterator[EmbeddedPostgres]:
    """A fresh, migrated, durable PostgreSQL with the same settings as `caudal up`."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg")
        await server.start()
        try:
            await migrate(server.url)
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def ingest(url: str, **environ: str) -> AsyncIterator[Child]:
    """One ingest process on free ports; its `endpoints` say where."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-log-") as folder:
        values = {"DATABASE_URL": url, "MQTT_PORT": "0", "METRICS_PORT": "0", "UNKNOWN_TENANTS": "register"}
        log = Path(folder) / "ingest.log"
        child = Child("ingest", ("caudal", "ingest"), child_environ(os.environ, **{**values, **environ}), log)
        try:
            await child.start()
            # What is published before it has its subscription would not come.
            while "MQTT_URL" in environ and "mqtt.broker_connected" not in log.read_text():
                await asyncio.sleep(0.01)
            yield child
        finally:
            await child.stop()
            text = log.read_text()
            if "error" in text:
                Path("/tmp/ingest-bench.log").write_text(text)


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process, now and at its peak, in MB."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all(pid: int) -> float:
    """Seconds of CPU of a process and of its children that live."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu(pid) + sum(cpu_of_all(int(child)) for child in children)


async def drained(child: Child) -> None:
    """Return once an ingest process has nothing in flight, as its metrics say."""

    def in_flight() -> float:
        with urllib.request.urlopen(child.endpoints["metrics_url"]) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("ingest_queue_size "))

    while await asyncio.to_thread(in_flight):
        await asyncio.sleep(0.01)


async def settle(connection: asyncpg.Connection[Any]) -> None:
    """Leave the server with nothing to do: what the last measurement dirtied must not slow the next one."""
    await connection.execute("checkpoint")
    await asyncio.sleep(0.5)
