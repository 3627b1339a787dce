"""Row by row: in every table of tenants' rows that the application reaches, one tenant's rows are its own.

A row of each of two tenants is put into each table, whatever it holds: constraints are taken away, so that
a row is what its policies see of it, and a new table is tested without a line here. Then the policies are
broken, one by one, and each break must be noticed: by rows, not by what the policy's text says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncpg
import pytest

APPLICATION = "caudal_app"

TABLES = """
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and a.attname = 'tenant_id' and has_column_privilege('caudal_app', c.oid, a.attnum, 'select') order by 1"""

COLUMNS = """
select a.attname as name, format_type(a.atttypid, null) as kind,
  a.attnotnull or a.attname = 'tenant_id' as needed, a.attnotnull as bound,
  has_column_privilege('caudal_app', a.attrelid, a.attnum, 'insert') as insertable,
  a.attidentity = '' and has_column_privilege('caudal_app', a.attrelid, a.attnum, 'update') as updatable
from pg_attribute a
where a.attrelid = ('caudal.' || quote_ident($1))::regclass and a.attnum > 0 and not a.attisdropped
  and a.attgenerated = ''
order by a.attnum"""

CHECKS = """
select format('alter table caudal.%I drop constraint %I', c.relname, k.conname) from pg_constraint k
join pg_class c on c.oid = k.conrelid
where c.relnamespace = 'caudal'::regnamespace and k.contype = 'c' and k.coninhcount = 0"""

POLICIES = """
select tablename as table, policyname as name, cmd from pg_policies
where schemaname = 'caudal' and roles && '{public,caudal_app}'::name[] and qual like '%current_tenant()%'
  and tablename = any($1) order by 1, 2"""


class Column(NamedTuple):
    """A column, and what the application may do with it."""

    name: str
    kind: str
    needed: bool
    bound: bool
    insertable: bool
    updatable: bool

    def value(self, tenant: int) -> str:
        """An expression for some value, another for each tenant."""
        if self.name == "tenant_id":
            return str(tenant)
        if self.kind.endswith("[]"):
            return "'{}'"
        return {
            "uuid": "gen_random_uuid()", "timestamp with time zone": "now()", "date": "current_date",
            "jsonb": "'{}'", "bytea": f"'\\x{tenant:08x}'", "boolean": "false", "interval": "'1 s'",
            "inet": f"'10.0.0.{tenant}'", "text": f"'tenant{tenant}'", "character varying": f"'t{tenant}'",
        }.get(self.kind, str(tenant))  # fmt: skip


class Rows:
    """One connection that owns everything and can become the application; every question is undone."""

    def __init__(self, connection: asyncpg.Connection[Any], ours: int, theirs: int) -> None:
        self.connection = connection
        self.ours = ours
        self.theirs = theirs
        self.columns: dict[str, list[Column]] = {}

    def insert(self, table: str, tenant: int, columns: list[Column]) -> str:
        """A statement that adds a row."""
        names = ", ".join(f'"{column.name}"' for column in columns)
        values = ", ".join(column.value(tenant) for column in columns)
        return f"insert into caudal.{table}({names}) overriding system value values ({values})"

    async def plant(self) -> None:
        """A row of each tenant in every table."""
        for table in [row["relname"] for row in await self.connection.fetch(TABLES)]:
            self.columns[table] = [Column(**row) for row in await self.connection.fetch(COLUMNS, table)]
            needed = [column for column in self.columns[table] if column.needed]
            for tenant in (self.ours, self.theirs):
                await self.connection.execute(self.insert(table, tenant, needed))
            bound = [column for column in needed if column.bound]
            if bound != needed:
                # What came from nobody we know is no tenant's either.
                await self.connection.execute(self.insert(table, self.theirs + 1, bound))

    async def leaks(self, table: str, *before: str) -> list[str]:
        """What the application can do in `table`, as our tenant, to the other's rows; after `before`."""
        columns = self.columns[table]
        reads = f"select count(*) from caudal.{table} where tenant_id = "
        found = []
        if await self._try(before, f"{reads}{self.ours}") != 1:
            found.append("does not see its own")
        if await self._try(before, f"{reads}{self.theirs}"):
            found.append("sees")
        if await self._try(before, f"select count(*) from caudal.{table} where tenant_id is null"):
            found.append("sees nobody's")
        changed = next((f'"{c.name}" = "{c.name}"' for c in columns if c.updatable), None)
        if changed and await self._try(
            before, f"update caudal.{table} set {changed} where tenant_id = {self.theirs}", write=True
        ):
            found.append("changes")
        if any(c.name == "tenant_id" and c.updatable for c in columns) and await self._try(
            before,
            f"update caudal.{table} set tenant_id = {self.theirs} where tenant_id = {self.ours}",
            write=True,
        ):
            found.append("gives away")
        if await self._try(before, f"delete from caudal.{table} where tenant_id = {self.theirs}", write=True):
            found.append("deletes")
        given = [column for column in columns if column.needed and column.insertable]
        if any(column.name == "tenant_id" for column in given) and await self._try(
            before, self.insert(table, self.theirs, given), write=True
        ):
            found.append("adds")
        return found

    async def _try(self, before: tuple[str, ...], statement: str, *, write: bool = False) -> int:
        """Rows counted or touched as the application; -1 for one that broke a key, 0 for refused."""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            for owner_s in before:
                await self.connection.execute(owner_s)
            await self.connection.execute("set local role caudal_app")
            await self.connection.execute("select set_config('app.tenant_id', 'ours', true)")
            if not write:
                return int(await self.connection.fetchval(statement))
            return int((await self.connection.execute(statement)).rpartition(" ")[2])
        except asyncpg.InsufficientPrivilegeError:
            return 0
        except (asyncpg.UniqueViolationError, asyncpg.ExclusionViolationError):
            # The policy let it through: keys are looked at afterwards.
            return -1
        finally:
            await transaction.rollback()


@pytest.fixture
async def rows(pool: asyncpg.Pool[Any]) -> AsyncIterator[Rows]:
    async with pool.acquire() as connection:
        ours, theirs = [
            await connection.fetchval("insert into caudal.tenant(name) values ($1) returning id", name)
            for name in ("ours", "theirs")
        ]
        for (statement,) in await connection.fetch(CHECKS):
            await connection.execute(statement)
        # Neither foreign keys nor triggers.
        await connection.execute("set session_replication_role = replica")
        made = Rows(connection, ours, theirs)
        await made.plant()
        yield made
        await connection.execute("reset session_replication_role")


async def test_no_row_of_another_tenant_is_within_reach(rows: Rows) -> None:
    assert {
        "message",
        "delivery",
        "conversation",
        "file",
        "upload",
        "upload_part",
        "notification",
        "device",
    } <= (rows.columns.keys())
    assert {table: found for table in rows.columns if (found := await rows.leaks(table))} == {}


async def test_a_policy_that_is_broken_is_noticed_by_its_rows(rows: Rows) -> None:
    policies = await rows.connection.fetch(POLICIES, list(rows.columns))
    assert {policy["table"] for policy in policies} == rows.columns.keys()
    for policy in policies:
        table, name = policy["table"], policy["name"]
        broken = await rows.leaks(table, f"alter policy {name} on caudal.{table} using (true)")
        assert broken, f"{table}.{name} with using (true) goes unnoticed"
        if policy["cmd"] in ("ALL", "INSERT") and any(
            column.name == "tenant_id" and column.insertable for column in rows.columns[table]
        ):
            broken = await rows.leaks(table, f"alter policy {name} on caudal.{table} with check (true)")
            assert "adds" in broken, f"{table}.{name} with check (true) goes unnoticed"
    for table in rows.columns:
        assert "sees" in await rows.leaks(table, f"alter table caudal.{table} disable row level security")
        # One policy more, of the kind that is added for somebody in a hurry.
        assert "sees" in await rows.leaks(
            table, f"create policy hurry on caudal.{table} for select using (tenant_id > 0)"
        )
