"""Migrations: numbered SQL files, forward only, each in one transaction, safe when two start at once."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Any, NamedTuple

import asyncpg

from caudal.core import logs
from caudal.core.db import check, explain, place
from caudal.core.errors import CaudalError, Unavailable

log = logs.get("migrate")

# Any constant will do, so long as everybody who migrates this database takes the same one.
LOCK = 0x6361756461
OLDEST = 15
ROLES = ("caudal_app", "caudal_ingest", "caudal_messaging", "caudal_reader", "caudal_upkeep")
"""Made by the migrations; each process runs as one of them."""


class Migration(NamedTuple):
    """One file: its number, its name, its text."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text: a released migration that was edited is refused."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationError(CaudalError):
    """The database and this version's migrations contradict each other."""

    code = "migration"


def migrations() -> list[Migration]:
    """Every migration of this version, in order."""
    found = []
    for entry in resources.files("caudal.core").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort()
    return found


async def _join_roles(connection: asyncpg.Connection[Any]) -> None:
    """Have the owner, who need not be a superuser, be allowed to run processes as the roles it has made."""
    # From 16 on who makes a role may grant it, and may not yet become it.
    kind = "SET" if connection.get_server_version().major >= 16 else "MEMBER"
    missing = await connection.fetch(
        "select rolname from pg_roles where rolname = any($1) and not pg_has_role(current_user, oid, $2)"
        " order by 1", ROLES, kind,
    )  # fmt: skip
    try:
        for row in missing:
            await connection.execute(f"grant {row['rolname']} to current_user")
    except asyncpg.InsufficientPrivilegeError as error:
        names = ", ".join(row["rolname"] for row in missing)
        raise MigrationError(
            f"The database's owner may not become {names}: somebody else made these roles. "
            f"As an administrator: grant {names} to the owner."
        ) from error


async def migrate(url: str) -> list[str]:
    """Bring the database up to this version; returns the names of what was applied.

    Raises MigrationError when an applied migration's text differs from ours, or the database is newer;
    Unavailable when nobody answers there, or a server that is too old.
    """
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            check(url), timeout=15, server_settings={"application_name": "caudal migrate"}
        )
    except Exception as error:
        if (sentence := explain(error, url)) is None:
            raise
        raise Unavailable(sentence) from None
    try:
        if (version := connection.get_server_version()).major < OLDEST:
            raise Unavailable(
                f"PostgreSQL at {place(url)} is version {version.major}; Caudal needs {OLDEST} or later."
            )
        await connection.execute("select pg_advisory_lock($1)", LOCK)
        await connection.execute("create schema if not exists caudal")
        await connection.execute(
            "create table if not exists caudal.migration("
            " number int primary key, name text not null, digest text not null,"
            " applied timestamptz not null default now())"
        )
        rows = await connection.fetch("select number, digest from caudal.migration")
        applied = {row["number"]: row["digest"] for row in rows}
        ours = migrations()
        newer = set(applied) - {migration.number for migration in ours}
        if newer:
            raise MigrationError(
                f"The database has migrations this version does not know ({min(newer)}…): "
                "it was migrated by a newer Caudal. Start that version."
            )
        done = []
        for migration in ours:
            if migration.number in applied:
                if applied[migration.number] != migration.digest:
                    raise MigrationError(
                        f"Migration {migration.number:04} ({migration.name}) was applied with other text. "
                        "Restore its file, or start from an empty database."
                    )
                continue
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into caudal.migration(number, name, digest) values ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.digest,
                )
            log.info("migrated", number=migration.number, name=migration.name)
            done.append(migration.name)
        await _join_roles(connection)
        return done
    finally:
        await connection.close()
