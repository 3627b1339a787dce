"""How long it takes from `caudal up --demo` to the first row that a query shows."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from caudal.core.postgres import EmbeddedPostgres

Row = dict[str, Any]


async def demo() -> Row:
    """From the command `caudal up --demo` on an empty directory to the first row that a query shows."""
    with tempfile.TemporaryDirectory(prefix="caudal-bench-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "caudal", "up", "--demo", "--data", f"{folder}/data",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(120):
                first = await _first_row(Path(folder) / "data", began)
                while not (Path(folder) / "data" / "endpoints.json").exists():
                    await asyncio.sleep(0.05)
                ready = time.perf_counter() - began
        finally:
            process.terminate()
            await process.wait()
    return {
        "what": "caudal up --demo, from the command, packages installed",
        "first_row_seconds": round(first, 1),
        "all_ready_seconds": round(ready, 1),
    }


async def _first_row(data: Path, began: float) -> float:
    """Seconds until `ts_measure` has a row, asked as soon as the server answers."""
    while True:
        await asyncio.sleep(0.05)
        server = EmbeddedPostgres(data / "postgres")
        try:
            server.port = int((server.data / "postmaster.pid").read_text().split("\n")[3])
            connection = await asyncpg.connect(server.url, timeout=2)
        except (OSError, ValueError, IndexError, TimeoutError, asyncpg.PostgresError):
            continue
        try:
            while not await connection.fetchval(
                "select to_regclass('public.ts_measure') is not null"
            ) or not await connection.fetchval("select exists (select from public.ts_measure)"):
                await asyncio.sleep(0.02)
            return time.perf_counter() - began
        finally:
            await connection.close()
