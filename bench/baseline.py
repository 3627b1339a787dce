"""Limit (a): plain COPY of the same rows into the same table, with as many connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from caudal.telemetry.rows import COLUMNS, HEADER, TRAILER, head, pack_double, tail, times


async def copy_rate(
    url: str, *, points: int, messages: int, connections: int, batch: int, first: int
) -> float:
    """Rows a second. `batch` is in messages; series numbers start at `first` so as to meet no other rows."""
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

    opened = [await asyncpg.connect(url) for _ in range(connections)]
    began = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in opened))
    seconds = time.perf_counter() - began
    for connection in opened:
        await connection.close()
    return messages * points / seconds
