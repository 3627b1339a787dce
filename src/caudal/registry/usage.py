"""What tenants keep, measured for their quota of storage: see migration 0112."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from caudal.core import logs

log = logs.get("usage")

EVERY_SECONDS = 60.0
"""How long a tenant may go on beyond its quota before it is noticed."""
ALL_EVERY = 30
"""Tenants without a quota of storage are measured every so many rounds: for the page that shows it."""


async def measure(pool: asyncpg.Pool[Any], *, limited: bool = False) -> int:
    """Measure every tenant, or those with a quota of storage; returns how many crossed it, either way."""
    changed: int = await pool.fetchval("select caudal.measure_usage($1)", limited, timeout=600)
    return changed


async def measure_for_ever(pool: asyncpg.Pool[Any], *, every_seconds: float = EVERY_SECONDS) -> None:
    """Keep `caudal.usage` as it is; for the life of the process. A database that is away is waited for."""
    rounds = 0
    while True:
        try:
            if changed := await measure(pool, limited=rounds % ALL_EVERY != 0):
                log.warning("tenants came over their quota of storage, or back below it", tenants=changed)
            rounds += 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("what tenants keep could not be measured; trying again", error=repr(error))
        await asyncio.sleep(every_seconds)
