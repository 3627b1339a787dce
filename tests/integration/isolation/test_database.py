"""The database keeps tenants apart by itself: policies, grants, functions, views, partitions, direct sign-in.

Walks the catalogue, so that a new table, view or function is held to the same rules without being named here.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from caudal.core import db
from caudal.registry.readers import create_reader, drop_reader

# What caudal_app may call although it runs with its owner's rights and does not ask for the tenant, and why
# that is right. A function that asks (`current_tenant`, `own_series`) needs no entry; others a reason here.
_SIGN_IN = (
    "asked before the tenant of a request is known; answers one question about one login, key or secret"
)
_DOOR = "says whether one device, gateway, user or certificate may come in, to who shows its digest"
_PKI = "a gateway that has no tenant yet, or no connection of one; answers about one MAC"
DOORS = {
    **dict.fromkeys(
        ("sign_in_find", "sign_in_failed", "sign_in_succeeded", "rehash", "memberships_of", "principal_of",
         "api_key_find", "session_open", "session_find", "session_extend", "session_close",
         "register_person", "reset_begin", "set_password", "reset_finish", "password_of", "invitation_find",
         "invitation_accept"),
        _SIGN_IN,
    ),
    **dict.fromkeys(("access_device", "access_gateway", "access_user", "access_certificate"), _DOOR),
    **dict.fromkeys(("provision_admit", "provision_register", "provision_state", "provision_holder"), _PKI),
    "renewals_today": "a count over all tenants, for the limit of the whole installation",
    "console_installation": "sizes and queues of the whole, for who may see operations",
    **dict.fromkeys(
        ("console_tenants", "console_make_tenant", "console_limit_tenant"),
        "names, counts and limits of tenants, for the tenant that runs the installation (ADR 0080)",
    ),
    "watch_series": "says which series a watcher waits for; what they said is read as the tenant",
    "tenant_name": "the name of one tenant by its number",
    "revoked": "what the revocation list publishes to everybody",
    "log_append": "writes to the log, which only routers read",
    "log_ensure": "makes a topic of the log",
    "channel_hook": "one account by its unguessable hook, its secrets sealed: a webhook has no tenant yet",
    "current_tenant": "is the question itself",
    "sees_all": "is the question itself",
    "keeps_owner": "a trigger",
}  # fmt: skip
APPLICATION = ("caudal_app", "caudal_reader")


async def _names(pool: asyncpg.Pool[Any], query: str, *values: object) -> list[str]:
    return [row[0] for row in await pool.fetch(query, *values)]


async def test_every_table_with_a_tenant_has_row_security(pool: asyncpg.Pool[Any]) -> None:
    bare = await _names(
        pool,
        """
        select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p')
          and a.attname = 'tenant_id' and not a.attisdropped
          and not (c.relrowsecurity and exists (select from pg_policy p where p.polrelid = c.oid))
          and (has_any_column_privilege('caudal_app', c.oid, 'select')
               or has_any_column_privilege('caudal_app', c.oid, 'insert')
               or has_any_column_privilege('caudal_app', c.oid, 'update')
               or has_table_privilege('caudal_app', c.oid, 'delete')
               or has_any_column_privilege('caudal_reader', c.oid, 'select'))
        """,
    )
    assert bare == [], "a table with tenant_id, without a policy, within reach"


async def test_every_policy_for_the_application_speaks_of_the_tenant(pool: asyncpg.Pool[Any]) -> None:
    loose = await _names(
        pool,
        """
        select tablename || '.' || policyname from pg_policies
        where schemaname = 'caudal' and (roles && '{public,caudal_app,caudal_reader}'::name[])
          and (coalesce(qual, with_check) not like '%current_tenant()%'
               or (with_check is not null and with_check not like '%current_tenant()%'))
        """,
    )
    assert loose == []


async def test_policies_ask_for_the_tenant_once_a_statement(pool: asyncpg.Pool[Any]) -> None:
    each_row = await _names(
        pool,
        "select tablename || '.' || policyname from pg_policies where schemaname = 'caudal' "
        "and qual like '%current_tenant()%' and qual not like '%SELECT caudal.current_tenant()%'",
    )
    assert each_row == [], "write (select caudal.current_tenant()), which the planner evaluates once"


@pytest.mark.parametrize("role", APPLICATION)
async def test_the_application_owns_nothing_and_bypasses_nothing(pool: asyncpg.Pool[Any], role: str) -> None:
    row = await pool.fetchrow(
        "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication from pg_roles "
        "where rolname = $1",
        role,
    )
    assert row is not None
    assert not any(row)
    owned = await _names(
        pool,
        "select relname from pg_class where relowner = $1::text::regrole union all "
        "select proname from pg_proc where proowner = $1::text::regrole",
        role,
    )
    assert owned == []
    member = await _names(
        pool, "select roleid::regrole::text from pg_auth_members where member = $1::text::regrole", role
    )
    assert member == []


@pytest.mark.parametrize("role", APPLICATION)
async def test_samples_and_their_partitions_are_out_of_reach(pool: asyncpg.Pool[Any], role: str) -> None:
    await pool.execute("select caudal.ensure_partition('2016-07-01'), caudal.ensure_partition(now())")
    reachable = await _names(
        pool,
        """
        select c.oid::regclass::text || ' ' || privilege from pg_class c,
          unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) privilege
        where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p')
          and (c.relname = 'sample' or c.oid in (select inhrelid from pg_inherits))
          and has_table_privilege($1, c.oid, privilege)
        """,
        role,
    )
    assert reachable == []


async def test_the_reader_reaches_views_and_nothing_else(pool: asyncpg.Pool[Any]) -> None:
    tables = await _names(
        pool,
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and c.relkind <> 'v' "
        "and c.relkind in ('r', 'p', 'm', 'f', 'S') "
        "and has_table_privilege('caudal_reader', c.oid, 'select')",
    )
    assert tables == []
    assert not await pool.fetchval("select has_schema_privilege('caudal_reader', 'caudal', 'usage')")
    assert not await pool.fetchval("select has_schema_privilege('caudal_reader', 'public', 'create')")


async def test_views_within_reach_are_barriers(pool: asyncpg.Pool[Any]) -> None:
    leaky = await _names(
        pool,
        """
        select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'caudal') and c.relkind = 'v'
          and (has_table_privilege('caudal_reader', c.oid, 'select')
               or has_table_privilege('caudal_app', c.oid, 'select'))
          and not ('security_barrier=true' = any(coalesce(c.reloptions, '{}'))
                   and pg_get_viewdef(c.oid) like '%current_tenant()%'
                or 'security_invoker=true' = any(coalesce(c.reloptions, '{}')))
        """,
    )
    assert leaky == []


async def test_nothing_materialised_is_within_reach(pool: asyncpg.Pool[Any]) -> None:
    found = await _names(
        pool,
        "select oid::regclass::text from pg_class where relkind = 'm' and (has_table_privilege("
        "'caudal_app', oid, 'select') or has_table_privilege('caudal_reader', oid, 'select'))",
    )
    assert found == [], "row security does not hold on materialised views"


async def test_functions_with_their_owners_rights_are_known(pool: asyncpg.Pool[Any]) -> None:
    found = await _names(
        pool,
        "select distinct proname from pg_proc where pronamespace in ('caudal'::regnamespace, "
        "'public'::regnamespace) and prosecdef and has_function_privilege('caudal_app', oid, 'execute') "
        "and prosrc !~ 'current_tenant|own_series'",
    )
    assert set(found) <= set(DOORS), f"new doors across tenants: {set(found) - set(DOORS)}"
    loose = await _names(
        pool,
        "select proname from pg_proc where pronamespace in ('caudal'::regnamespace, 'public'::regnamespace) "
        "and prosecdef and not coalesce(proconfig::text, '') like '%search_path%'",
    )
    assert loose == [], "security definer without a fixed search_path"


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
