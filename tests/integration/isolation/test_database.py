"""The database keeps tenants apart by itself: views, policies, direct sign-in, tried as each role."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from caudal.core import db
from caudal.registry.readers import create_reader, drop_reader


async def _names(pool: asyncpg.Pool[Any], query: str, *values: object) -> list[str]:
    return [row[0] for row in await pool.fetch(query, *values)]


@pytest.fixture
async def two(pool: asyncpg.Pool[Any]) -> asyncpg.Pool[Any]:
    """Tenants `ours` and `theirs`, a row of each kind in both."""
    for name in ("ours", "theirs"):
        await pool.execute(
            """
            with t as (insert into caudal.tenant(name) values ($1) returning id),
            d as (insert into caudal.device(tenant_id, name) select id, $1 || '-device' from t
                  returning id, tenant_id),
            r as (insert into caudal.series(tenant_id, device_id, name) select tenant_id, id, 'p' from d
                  returning id),
            s as (insert into caudal.sample(series, ts, received, v_num) select id, now(), now(), 1 from r),
            q as (insert into caudal.quota(tenant_id) select id from t),
            e as (insert into caudal.dead_letter
                    (tenant_id, tenant_name, topic, payload, reason, sentence, received, digest)
                  select id, $1, 't', 'x', 'r', 's', now(), '' from t),
            a as (insert into caudal.ack(tenant_id, device_id, cmd_id, ok, payload)
                  select tenant_id, id, 'c', true, '{}' from d),
            g as (insert into caudal.gateway(tenant_id, code, mac)
                  select id, 'G', case $1 when 'ours' then '00:00:00:00:00:01' else '00:00:00:00:00:02' end
                  from t)
            insert into caudal.audit(tenant_id, actor, action) select id, 'a', 'b' from t
            """,
            name,
        )
    return pool


VIEWS = """
    select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'v' and a.attname = 'tenant_id'
      and has_table_privilege('caudal_reader', c.oid, 'select') order by 1
"""


@pytest.mark.parametrize("setting", ["ours", "", None, "nobody", "ours' or true --", "*", "theirs\x01"])
async def test_views_show_the_settings_tenant_alone(
    two: asyncpg.Pool[Any], database_url: str, setting: str | None
) -> None:
    """As the reader's role, whatever `app.tenant_id` says: the tenant's own rows, or none."""
    pool = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_reader")
    try:
        views = await _names(two, VIEWS)
        assert {"ts_measure", "ingest_errors", "cmd_ack"} <= set(views)
        async with pool.acquire() as connection, connection.transaction():
            if setting is not None:
                await connection.execute("select set_config('app.tenant_id', $1, true)", setting)
            for view in views:
                rows = await connection.fetch(f"select distinct tenant_id::text from {view}")
                seen = {row[0] for row in rows}
                assert seen <= ({"ours"} if setting == "ours" else set()), (view, setting, seen)
                if setting == "ours" and view in {"ts_measure", "ingest_errors", "cmd_ack"}:
                    assert seen == {"ours"}
    finally:
        await pool.close()


async def test_a_clever_predicate_sees_no_row_early(two: asyncpg.Pool[Any], database_url: str) -> None:
    """A cheap function that leaks its argument must not run before the view's own condition."""
    await two.execute(
        "create function public.leak(t text) returns bool language plpgsql cost 0.0000001 as "
        "$$ begin raise notice 'leak %', t; return true; end $$; "
        "grant execute on function public.leak to public"
    )
    pool = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_reader")
    heard: list[str] = []

    def hear(_: object, message: object) -> None:
        heard.append(str(message))

    try:
        async with pool.acquire() as connection, connection.transaction():
            connection.add_log_listener(hear)
            await connection.execute("select set_config('app.tenant_id', 'ours', true)")
            await connection.fetch("select 1 from public.ts_measure where public.leak(device_id)")
            await connection.fetch("select 1 from public.ingest_errors where public.leak(tenant_id)")
            connection.remove_log_listener(hear)
    finally:
        await pool.close()
    assert any("ours" in line for line in heard)
    assert not any("theirs" in line for line in heard)


async def test_every_table_shows_the_application_one_tenant(
    two: asyncpg.Pool[Any], database_url: str
) -> None:
    pool = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_app")
    try:
        ours = await two.fetchval("select id from caudal.tenant where name = 'ours'")
        tables = await _names(
            two,
            "select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid "
            "where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p', 'v') "
            "and a.attname = 'tenant_id' and has_column_privilege('caudal_app', c.oid, a.attnum, 'select')",
        )
        assert "caudal.device" in tables
        for table in tables:
            async with db.tenant_transaction(pool, "ours") as connection:
                seen = {row[0] for row in await connection.fetch(f"select distinct tenant_id from {table}")}
                assert seen <= {ours}, table
            async with pool.acquire() as connection, connection.transaction():
                assert await connection.fetch(f"select tenant_id from {table} limit 1") == [], table
    finally:
        await pool.close()


async def test_rows_cannot_be_written_into_or_moved_to_another_tenant(
    two: asyncpg.Pool[Any], database_url: str
) -> None:
    pool = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_app")
    theirs = await two.fetchval("select id from caudal.tenant where name = 'theirs'")
    try:
        tables = await _names(
            two,
            "select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid "
            "where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p') "
            "and a.attname = 'tenant_id' and has_column_privilege('caudal_app', c.oid, a.attnum, 'update')",
        )
        assert "caudal.device" in tables
        for table in tables:
            async with db.tenant_transaction(pool, "ours") as connection:
                if not await connection.fetchval(f"select count(*) from {table}"):
                    continue
                with pytest.raises(asyncpg.PostgresError):
                    await connection.execute(f"update {table} set tenant_id = $1", theirs)
        async with db.tenant_transaction(pool, "ours") as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(
                    "insert into caudal.device(tenant_id, name) values ($1, 'x')", theirs
                )
        async with db.tenant_transaction(pool, "ours") as connection:
            done = await connection.execute("delete from caudal.device where tenant_id = $1", theirs)
            assert done == "DELETE 0"
    finally:
        await pool.close()


@pytest.mark.parametrize("statement", [
    "reset role", "set role postgres", "set role none", "set session authorization default",
    "set session authorization postgres",
])  # fmt: skip
async def test_the_application_cannot_become_somebody_else(
    database_url: str, pool: asyncpg.Pool[Any], statement: str
) -> None:
    """As it signs in in production: with a login that is a member of `caudal_app` and of nothing else."""
    login = f"login_{database_url.rsplit('_', 1)[1]}_app"
    await pool.execute(f"create role {login} login password 'x' in role caudal_app")
    host = database_url.rsplit("@", 1)[1]
    connection = await asyncpg.connect(
        f"postgresql://{login}:x@{host}", server_settings={"role": "caudal_app"}
    )
    try:
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError:
            pass
        assert await connection.fetchval("select current_user") in ("caudal_app", login)
        assert await connection.fetch("select * from caudal.device") == []
    finally:
        await connection.close()
        await pool.execute(f"drop role {login}")


async def test_a_tenants_own_sql_login_stays_in_its_tenant(two: asyncpg.Pool[Any], database_url: str) -> None:
    made = await create_reader(two, "ours", "analyst")
    host = database_url.rsplit("@", 1)[1]
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        f"postgresql://{made.role}:{made.password}@{host}"
    )
    try:
        attempts = [
            "select 1", "set app.tenant_id = 'theirs'", "select set_config('app.tenant_id', 'theirs', false)",
            "set app.tenant_id = ''", "reset app.tenant_id", "set role caudal_reader", "set role none",
        ]  # fmt: skip
        for attempt in attempts:
            await connection.execute(attempt)
            assert {r[0] for r in await connection.fetch("select tenant_id from ts_measure")} == {"ours"}, (
                attempt
            )
            assert {r[0] for r in await connection.fetch("select tenant_id from cmd_ack")} == {"ours"}, (
                attempt
            )
        # Of a tenant that is suspended its reader sees nothing, nor anybody else's by what they set.
        await two.execute("update caudal.tenant set status = 'suspended' where name = 'ours'")
        for attempt in attempts:
            await connection.execute(attempt)
            for view in ("ts_measure", "ingest_errors", "cmd_ack", "tds_new_gateway"):
                assert await connection.fetch(f"select * from {view}") == [], (attempt, view)
        await two.execute("update caudal.tenant set status = 'active' where name = 'ours'")
        assert {r[0] for r in await connection.fetch("select tenant_id from ts_measure")} == {"ours"}
        for forbidden in (
            "select * from caudal.sample", "select * from caudal.tenant", "set role caudal_app",
            "set role postgres",
            "set session authorization postgres", "create table public.x(i int)",
            "select caudal.set_password(null, '')",
            "delete from ts_measure", "insert into ts_measure(ts) values (now())",
            f"alter role {made.role} superuser", "select pg_read_file('/etc/passwd')",
        ):  # fmt: skip
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(forbidden)
    finally:
        await connection.close()
        await drop_reader(two, "ours", "analyst")
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(f"postgresql://{made.role}:{made.password}@{host}")
