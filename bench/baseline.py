"""Limit (a): plain COPY of the same rows into the same table, with as many connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec

from bench import stack
from caudal.core.postgres import EmbeddedPostgres
from caudal.telemetry.rows import COLUMNS, HEADER, TRAILER, head, pack_double, tail, times


class Copied(msgspec.Struct, frozen=True):
    """Rows a second, and the microseconds of CPU that a row took, the server's and its client's."""

    rate: float
    cost: float


async def copy_rate(
    server: EmbeddedPostgres, *, points: int, messages: int, connections: int, batch: int, first: int
) -> Copied:
    """Write so many rows as fast as can be, from this process.

    `batch` is in messages; series numbers start at `first` so as to meet no other rows.
    """
    at = time.time_ns() // 1000
    devices = 800
    batches: list[bytes] = []
    for start in range(0, messages, batch):
        rows = [HEADER]
        for index in range(start, min(start + batch, messages)):
            device = index % devices
            middle = times(at + index // devices * 10_000, at)
            for point in range(points):
                number = head(first + device * points + point, 0, 1)
                rows.append(number + middle + pack_double(20 + point * 1.25 + index % 977 / 100) + tail(None))
        rows.append(TRAILER)
        batches.append(b"".join(rows))
    todo = iter(batches)

    async def work(connection: asyncpg.Connection[Any]) -> None:
        for rows in todo:

            async def source(rows: bytes = rows) -> AsyncIterator[bytes]:
                yield rows

            await connection.copy_to_table(
                "sample", schema_name="caudal", source=source(), columns=COLUMNS, format="binary"
            )

    opened = [await asyncpg.connect(server.url) for _ in range(connections)]
    began, before = time.perf_counter(), _cpu(server)
    await asyncio.gather(*(work(connection) for connection in opened))
    seconds, used = time.perf_counter() - began, _cpu(server) - before
    for connection in opened:
        await connection.close()
    rows = messages * points
    return Copied(rows / seconds, used / rows * 1e6)


def _cpu(server: EmbeddedPostgres) -> float:
    return time.process_time() + stack.cpu_of_all(server.pid or 0)
