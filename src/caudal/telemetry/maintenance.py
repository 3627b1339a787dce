"""Upkeep of what telemetry stores: partitions ahead of time, compression, retention, old dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.metrics import Metrics
from caudal.core.settings import setting

log = logs.get("maintenance")

AHEAD_DAYS = 7
_AT_ONCE = 10_000
CHUNKS_AT_ONCE = 100
"""Chunks compressed in one turn: then the other jobs have theirs."""
_CHUNK_SECONDS = 6 * 3600
_COMPRESS = "select caudal.compress_chunk($1)"


class RetentionSettings(msgspec.Struct, frozen=True):
    """How long things are kept. Rollups by the hour and the day stay for good."""

    retention_days: Annotated[int, setting("Days that samples are kept; 0: for ever", ge=0)] = 0
    dead_letter_days: Annotated[int, setting("Days that dead letters are kept", ge=1)] = 14
    compress_days: Annotated[
        int, setting("TimescaleDB: days after its end that a week's chunk is compressed; 0: never", ge=0)
    ] = 7


class Maintenance:
    """Does what is due every `pause` seconds. Several may run: each job minds the others by itself."""

    def __init__(
        self, pool: asyncpg.Pool[Any], settings: RetentionSettings, metrics: Metrics, *, pause: float = 3600
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._pause = pause
        self._failures = metrics.counter("maintenance_failures", "Jobs that failed, to be tried again", "job")
        self._last = metrics.gauge(
            "maintenance_last_success_timestamp_seconds", "When a job was last done", "job"
        )

    async def partitions(self) -> None:
        """Have a partition for each of the next days, so that no commit waits for one to be made."""
        await self._pool.execute("select caudal.ensure_partitions($1)", AHEAD_DAYS)

    async def retention(self) -> list[str]:
        """Drop what is older than it may be; returns the partitions that went."""
        dropped: list[str] = []
        if self._settings.retention_days:
            rows = await self._pool.fetch(
                "select caudal.apply_retention($1)", self._settings.retention_days, timeout=600
            )
            dropped = [row[0] for row in rows]
            if dropped:
                log.info("old partitions dropped", partitions=dropped)
        after: int | None = 0
        while after is not None:
            after = await self._pool.fetchval(
                "select caudal.apply_tenant_retention($1, 100)", after, timeout=600
            )
        return dropped

    async def compression(self) -> list[str]:
        """Compress what is old enough, on TimescaleDB; returns the chunks that were.

        A chunk by itself, committed by itself: one that fails, or is being read for too long, keeps no other
        from its turn. Raises what the last one failed with.
        """
        if not self._settings.compress_days:
            return []
        days = self._settings.compress_days
        rows = await self._pool.fetch("select caudal.compressible_chunks($1)", days)
        done: list[str] = []
        failed: asyncpg.PostgresError | None = None
        for row in rows[:CHUNKS_AT_ONCE]:
            chunk: str = row[0]
            try:
                ours = await self._pool.fetchval(_COMPRESS, chunk, timeout=_CHUNK_SECONDS)
                if not ours:
                    break  # another process is at it
                done.append(chunk)
            except asyncpg.PostgresError as error:
                log.warning("a chunk could not be compressed", chunk=chunk, error=repr(error))
                failed = error
        if done:
            log.info("old chunks compressed", chunks=done)
        if failed is not None:
            raise failed
        return done

    async def dead_letters(self) -> int:
        """Delete dead letters that are past their time; returns how many."""
        gone = 0
        while True:
            some: int = await self._pool.fetchval(
                "select caudal.prune_dead_letters($1, $2)", self._settings.dead_letter_days, _AT_ONCE
            )
            gone += some
            if some < _AT_ONCE:
                return gone

    async def once(self) -> None:
        """Every job, each by itself: one that fails does not keep the next from its turn."""
        jobs: dict[str, Callable[[], Awaitable[object]]] = {
            "partitions": self.partitions,
            "retention": self.retention,
            "compression": self.compression,
            "dead letters": self.dead_letters,
        }
        for name, job in jobs.items():
            try:
                await job()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._failures.labels(name).inc()
                log.error("a job failed and will be tried again", job=name, error=repr(error))
            else:
                self._last.labels(name).set_to_current_time()

    async def run(self) -> None:
        """Do what is due, for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self._pause)
