"""People who read with SQL: a login for each, bound to its tenant by the database itself.

`caudal.current_tenant()` looks the login up before it looks at `app.tenant_id`, so that nothing a reader can
set shows another tenant's rows. Made by the installation's administrator.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound

from . import audit

NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")


class Reader(msgspec.Struct, frozen=True):
    """A login of the database and its password, which is shown once."""

    role: str
    password: str


class ReaderLine(msgspec.Struct, frozen=True):
    """A login and whose rows it reads."""

    role: str
    tenant: str
    created_at: datetime


async def find(pool: asyncpg.Pool[Any], tenant: str | None = None) -> list[ReaderLine]:
    """All readers, or those of one tenant."""
    rows = await pool.fetch(
        "select r.role_name as role, t.name as tenant, r.created_at from caudal.sql_reader r"
        " join caudal.tenant t on t.id = r.tenant_id where $1::text is null or t.name = $1 order by 2, 1",
        tenant,
    )
    return [ReaderLine(**row) for row in rows]


async def _role(connection: Any, tenant: str, name: str) -> tuple[str, int]:
    if not NAME.fullmatch(name):
        raise InvalidInput("A reader's name is 1 to 30 small letters, digits and underscores.")
    row = await connection.fetchrow(
        "select id, current_database() as here from caudal.tenant where name = $1", tenant
    )
    if row is None:
        raise NotFound(f"There is no tenant {tenant}. `caudal tenant list` shows those there are.")
    # Roles belong to the cluster: the database is part of the name, so that two installations do not meet.
    here = re.sub(r"[^a-z0-9_]", "_", row["here"].lower())[:20]
    return f"caudal_{here}_{row['id']}_{name}"[:63], row["id"]


async def create_reader(pool: asyncpg.Pool[Any], tenant: str, name: str) -> Reader:
    """A login that may read the views of one tenant. Raises InvalidInput, NotFound, Conflict."""
    password = secrets.token_urlsafe(24)
    async with pool.acquire() as connection, connection.transaction():
        role, tenant_id = await _role(connection, tenant, name)
        try:
            # Nothing in these words needs quoting: letters, digits, dashes, underscores.
            await connection.execute(
                f"create role \"{role}\" login password '{password}' in role caudal_reader "
                "nosuperuser nocreatedb nocreaterole connection limit 5"
            )
        except asyncpg.DuplicateObjectError as error:
            raise Conflict(f"There is a reader {name} already.") from error
        await connection.execute(
            "insert into caudal.sql_reader(role_name, tenant_id) values ($1, $2)", role, tenant_id
        )
        for setting in ("statement_timeout = '60s'", "idle_in_transaction_session_timeout = '60s'"):
            await connection.execute(f'alter role "{role}" set {setting}')
        await audit.by_operator(connection, tenant_id, "reader.created", role)
    return Reader(role, password)


async def drop_reader(pool: asyncpg.Pool[Any], tenant: str, name: str) -> None:
    """Withdraw a reader's login and end its connections. Raises NotFound."""
    async with pool.acquire() as connection, connection.transaction():
        role, tenant_id = await _role(connection, tenant, name)
        if not await connection.fetchval(
            "delete from caudal.sql_reader where role_name = $1 returning 1", role
        ):
            raise NotFound(f"There is no reader {name}.")
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role
        )
        await connection.execute(f'drop role "{role}"')
        await audit.by_operator(connection, tenant_id, "reader.dropped", role)
