"""A database that stands still in the middle of COMMIT, for as long as a test likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

KEY = 7_231
# Deferred: it fires when everything of the transaction is done but its end.
HOLD = """
create function public.held_commit() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared({key});
  return null;
end $$;
create constraint trigger held_commit after insert on {table}
  deferrable initially deferred for each row execute function public.held_commit();
"""
WAITS = "select count(*) from pg_locks where locktype = 'advisory' and objid = $1 and not granted"

Reached = Callable[[], Awaitable[None]]


@asynccontextmanager
async def commits_held(pool: asyncpg.Pool[Any], table: str) -> AsyncIterator[Reached]:
    """Transactions that insert into `table` do not end before this does; awaits the first that would."""
    await pool.execute(HOLD.format(key=KEY, table=table))

    async def reached() -> None:
        async with asyncio.timeout(20):
            # No event of the database says that somebody waits.
            while not await pool.fetchval(WAITS, KEY):
                await asyncio.sleep(0.01)

    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", KEY)
        yield reached
