"""Connections to PostgreSQL, and the one door through which a tenant reaches a query."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
import msgspec

from caudal.core.settings import setting


class DatabaseSettings(msgspec.Struct, frozen=True):
    """Where the database is and how many connections a process may hold."""

    database_url: Annotated[
        str | None, setting("PostgreSQL 15 or later; the embedded server when left out")
    ] = None
    db_pool_min: Annotated[int, setting("Connections kept open by a process", ge=0)] = 2
    db_pool_max: Annotated[int, setting("Connections a process may open", ge=1)] = 8


# So that the server, within half a minute and not two hours, lets go of what a vanished client had locked.
KEEP_ALIVE = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}


async def _prepare(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda raw: msgspec.json.decode(raw[1:]),
        format="binary",
    )


async def open_pool(
    url: str,
    *,
    minimum: int = 2,
    maximum: int = 8,
    role: str | None = None,
    name: str = "caudal",
    **server_settings: str,
) -> asyncpg.Pool[Any]:
    """A pool of connections that speak jsonb as Python values.

    With `role` every connection runs as that role from its first statement. It is a start-up parameter, so
    `reset role` returns to it and not to the role that signed in.
    """
    settings = {"application_name": name, "timezone": "UTC", **KEEP_ALIVE, **server_settings}
    if role:
        settings["role"] = role
    pool: asyncpg.Pool[Any] = await asyncpg.create_pool(
        url, min_size=minimum, max_size=maximum, init=_prepare, server_settings=settings, command_timeout=60
    )
    return pool


@asynccontextmanager
async def tenant_transaction(
    pool: asyncpg.Pool[Any], tenant: str, *, readonly: bool = False
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A transaction that sees the rows of `tenant` (its name) alone.

    Row security and the views read `app.tenant_id`; it is set for this transaction and gone with it.
    """
    async with pool.acquire() as connection, connection.transaction(readonly=readonly):
        await connection.execute("select set_config('app.tenant_id', $1, true)", tenant)
        yield connection  # type: ignore[misc]  # the pool's proxy behaves as the connection
