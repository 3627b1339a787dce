"""The ground that checks stand on: a tenant of their own, made before and removed after, whatever happened.

Removing is one transaction over every table that knows tenants, found in the catalogue: rows, devices, dead
letters and the sums of the ledger go together, so the ledger agrees before, while and after.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from graphlib import TopologicalSorter
from typing import Any

import asyncpg

from caudal.core import db
from caudal.core.errors import Conflict, Unavailable
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.tenants import create_person, create_tenant

MARK = "Made and removed by caudal validate"
"""Display name by which a tenant is known to be ours to remove."""
TRIES = 5

TABLES = """
select c.relname as name, array(
  select f.conrelid::regclass::text from pg_constraint f where f.confrelid = c.oid and f.contype = 'f'
    and f.conrelid <> c.oid) as children
from pg_class c where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p')
  and not c.relispartition
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
              and not a.attisdropped)
"""
BY_SERIES = ("sample", "rollup_minute", "rollup_hour", "rollup_day", "rollup_stale")


class Ground:
    """A tenant, people in it, and connections: `admin` sees everything, `reader` what the tenant does."""

    def __init__(
        self, admin: asyncpg.Pool[Any], reader: asyncpg.Pool[Any], tenant: str, tenant_id: int
    ) -> None:
        self.admin = admin
        self.reader = reader
        self.tenant = tenant
        self.tenant_id = tenant_id
        self.objects = 0
        """After the clean-up: bytes of files that wait for the sweep."""
        self.run = secrets.token_hex(4)
        """In the names of devices and conversations: no run meets what an earlier one left in a cache."""

    async def person(self, name: str) -> tuple[str, str, str]:
        """A new person who may set up connectors and send: their id, username and password."""
        username, password = f"v{self.run}_{name}", secrets.token_urlsafe(12)
        passwords = Passwords(threads=1)
        try:
            made = await create_person(
                self.admin,
                passwords,
                tenant=self.tenant,
                role=Role.ADMIN,
                username=username,
                password=password,
            )
        finally:
            passwords.close()
        return str(made), username, password


@asynccontextmanager
async def prepared(database_url: str, tenant: str) -> AsyncIterator[Ground]:
    """The ground, and nothing left of it afterwards.

    Raises Unavailable (no database, or no rights in it), Conflict (the tenant is somebody's, or another run
    is under way).
    """
    # When the database goes away the checks say so; the pool's own complaints would bury them.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL + 1)
    try:
        admin = await db.open_pool(database_url, minimum=1, maximum=4, name="caudal validate")
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Unavailable(f"The database does not answer: {error}. Is the installation up?") from None
    reader = None
    try:
        async with admin.acquire() as lock:
            if not await lock.fetchval("select pg_try_advisory_lock(hashtext('caudal validate'))"):
                raise Conflict("Another caudal validate is under way on this database.")
            try:
                await _removed_before(admin, tenant)
                number = await create_tenant(admin, tenant, display_name=MARK)
                as_tenant: dict[str, Any] = {"app.tenant_id": tenant}
                reader = await db.open_pool(database_url, maximum=4, name="caudal validate", **as_tenant)
                ground = Ground(admin, reader, tenant, number)
                try:
                    yield ground
                finally:
                    ground.objects = await remove(admin, number)
            finally:
                # Where the connection is gone, so is the lock; what else went wrong matters more.
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await lock.execute("select pg_advisory_unlock(hashtext('caudal validate'))")
    except asyncpg.InsufficientPrivilegeError as error:
        raise Unavailable(
            f"The database does not let us: {error}. Give an administrator's connection with --database-url."
        ) from None
    finally:
        if reader is not None:
            reader.terminate()
        admin.terminate()


async def _removed_before(admin: asyncpg.Pool[Any], tenant: str) -> None:
    """Remove what a run that was killed has left; refuse to touch anything else."""
    row = await admin.fetchrow("select id, display_name from caudal.tenant where name = $1", tenant)
    if row is None:
        return
    if row["display_name"] != MARK:
        raise Conflict(
            f"The tenant {tenant} was not made by caudal validate, and is left alone. Name another with"
            " --tenant."
        )
    await remove(admin, row["id"])


async def remove(admin: asyncpg.Pool[Any], number: int) -> int:
    """Remove the tenant and everything of it, in one transaction. Raises asyncpg's errors.

    Returns how many objects wait for the sweep of files.
    """
    await _quiet(admin, number)
    for turn in range(TRIES):
        try:
            async with admin.acquire() as connection, connection.transaction():
                return await _remove(connection, number)
        except (
            asyncpg.DeadlockDetectedError,
            asyncpg.ForeignKeyViolationError,
            asyncpg.SerializationError,
            asyncpg.LockNotAvailableError,
        ):
            # A process was just writing a row of ours: once more, with that row.
            if turn == TRIES - 1:
                raise
            await asyncio.sleep(0.3)
    raise AssertionError("the last try returns or raises")


async def _quiet(admin: asyncpg.Pool[Any], number: int) -> None:
    """Wait until nothing is being stored for the tenant any more, and nothing of it is on its way to a router
    (which would find a record without its message); at most 10 s."""
    before: object = None
    for _ in range(20):
        now = await admin.fetchval("select sum(messages) from caudal.ledger where tenant_id = $1", number)
        on_their_way = await admin.fetchval(
            "select exists (select from caudal.message"
            " where tenant_id = $1 and routed_at is null and not waiting)",
            number,
        )
        if now == before and not on_their_way:
            return
        before = now
        await asyncio.sleep(0.5)


async def _remove(connection: Any, number: int) -> int:
    # No refresher makes rollups of what we are about to delete.
    await connection.execute("select pg_advisory_xact_lock(hashtext('caudal.rollup refresher'))")
    series = [
        row[0] for row in await connection.fetch("select id from caudal.series where tenant_id = $1", number)
    ]
    for table in BY_SERIES:
        await connection.execute(f"delete from caudal.{table} where series = any($1)", series)
    await connection.execute(
        "delete from caudal.channel_limit where account_id in"
        " (select id from caudal.channel_account where tenant_id = $1)", number,
    )  # fmt: skip
    people = [
        row[0]
        for row in await connection.fetch(
            "select person_id from caudal.membership where tenant_id = $1", number
        )
    ]
    # Bytes are not ours to delete: we say which are nobody's, and the sweep of files removes them in minutes.
    # It asks for no tenant, so ours need not wait for it.
    await connection.execute(
        "insert into caudal.object_intent(path, tenant_id, since)"
        " select storage_path, tenant_id, '-infinity' from caudal.file where tenant_id = $1"
        " on conflict do nothing", number,
    )  # fmt: skip
    for table in _children_first(await connection.fetch(TABLES)):
        if table != "object_intent":
            # The name comes from the catalogue; it is one of ours.
            await connection.execute(f'delete from caudal."{table}" where tenant_id = $1', number)
    await connection.execute(
        "delete from caudal.person p where p.id = any($1)"
        " and not exists (select from caudal.membership m where m.person_id = p.id)", people,
    )  # fmt: skip
    objects = await connection.execute(
        "update caudal.object_intent set tenant_id = null where tenant_id = $1", number
    )
    await connection.execute("delete from caudal.tenant where id = $1", number)
    return int(objects.removeprefix("UPDATE "))


def _children_first(rows: Iterable[Any]) -> list[str]:
    """Tables in an order in which rows can go: who refers to a table before the table itself."""
    graph = {row["name"]: {child.removeprefix("caudal.") for child in row["children"]} for row in rows}
    return [name for name in TopologicalSorter(graph).static_order() if name in graph]
