"""The one door through which a route reaches the database: as `caudal_app`, for the caller's tenant."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from caudal.core import db
from caudal.registry.principal import Principal


class Door:
    """Opens transactions that see the rows of one tenant alone.

        async with door.write() as connection:
            await connection.execute(...)

    Committed when the block ends, so before the answer goes out.
    """

    __slots__ = ("_pool", "principal")

    def __init__(self, pool: asyncpg.Pool[Any], principal: Principal) -> None:
        self._pool = pool
        self.principal = principal

    def read(self) -> AbstractAsyncContextManager[asyncpg.Connection[Any]]:
        """A read-only transaction."""
        return db.tenant_transaction(self._pool, self.principal.tenant, readonly=True)

    def write(self) -> AbstractAsyncContextManager[asyncpg.Connection[Any]]:
        """A transaction that may write."""
        return db.tenant_transaction(self._pool, self.principal.tenant)
