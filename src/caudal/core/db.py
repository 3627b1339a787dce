"""Connections to PostgreSQL, and the one door through which a tenant reaches a query."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import asyncpg
import msgspec

from caudal.core.errors import SettingsError
from caudal.core.settings import load, setting

# What works for people: owns nothing, bypasses nothing; row security holds.
APP_ROLE = "caudal_app"


class DatabaseSettings(msgspec.Struct, frozen=True):
    """Where the database is and how many connections a process may hold."""

    database_url: Annotated[
        str | None, setting("PostgreSQL 15 or later; the embedded server when left out")
    ] = None
    db_pool_min: Annotated[int, setting("Connections kept open by a process", ge=0)] = 2
    db_pool_max: Annotated[int, setting("Connections a process may open", ge=1)] = 8


def url_of(environ: Mapping[str, str]) -> str:
    """The server that the settings name, for a process that has none of its own. Raises SettingsError."""
    url = load(DatabaseSettings, environ).database_url
    if not url:
        raise SettingsError("DATABASE_URL is not set. `caudal up` brings a database of its own.")
    return url


def place(url: str) -> str:
    """Where a connection string points to, for a sentence: without user and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2] or 'localhost'}{parts.path}"


def check(url: str) -> str:
    """`url`, if it may be a connection string. Raises SettingsError.

    Some libraries take a port beyond 65535 for another port, and another database's address for ours.
    """
    try:
        parts = urlsplit(url)
        # Several hosts, with commas, are one server and its stand-ins.
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [urlsplit(f"//{host}").port for host in hosts]
        usable = parts.scheme in ("postgresql", "postgres") and 0 not in ports
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(
            "DATABASE_URL cannot be understood. Write it as postgresql://user:password@host:5432/database."
        )
    return url


def explain(error: BaseException, url: str = "") -> str | None:
    """Why the database cannot be used, and what to do next; None for an error of another kind."""
    where = place(url) if url else "the address given"
    match error:
        case asyncpg.ClientConfigurationError():
            return f"DATABASE_URL cannot be understood ({error})."
        case asyncpg.InvalidCatalogNameError():
            return f"There is no such database at {where} ({error}). Make it, or correct DATABASE_URL."
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"PostgreSQL at {where} lets us not in ({error}). Correct the user in DATABASE_URL."
        case asyncpg.UndefinedTableError() | asyncpg.InvalidSchemaNameError():
            return f"The database has no tables of ours ({error}). Run `caudal migrate` on it first."
        case asyncpg.InsufficientPrivilegeError():
            return (
                f"PostgreSQL refuses ({error.args[0]}). Tools and migrations need the database's owner, and"
                " one who may make roles: alter role NAME createrole."
            )
        case asyncpg.PostgresError() | asyncpg.InterfaceError():
            # Its first line: the detail shows the row, and a row may hold a secret.
            return f"PostgreSQL at {where} refuses: {error.args[0] if error.args else error}."
        case OSError():  # with TimeoutError
            why = str(error) or "no answer in time"
            return f"PostgreSQL at {where} does not answer ({why}). Start it, or correct DATABASE_URL."
    return None


# What every session of ours asks of the server, whatever its configuration says.
SESSION = {
    # Within half a minute and not two hours it lets go of what a vanished client had locked.
    "tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
    # Our queries are short and their plans name many partitions: compiling one took a hundred times as long
    # as running it (400 ms against 5, over the 726 chunks of two years). PostgreSQL's default is on.
    "jit": "off",
    # TimescaleDB's, and to PostgreSQL without it a name: a statement may touch 100,000 compressed rows by
    # default; the late readings of a fleet are more, and what retention by tenant deletes.
    "timescaledb.max_tuples_decompressed_per_dml_transaction": "0",
}  # fmt: skip


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
    settings = {"application_name": name, "timezone": "UTC", **SESSION, **server_settings}
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
