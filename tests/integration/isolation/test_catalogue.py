"""The database's catalogue, walked: what is new is held to the same rules without being named here."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

# What caudal_app may call although it runs with its owner's rights and does not ask for the tenant, and why
# that is right. A function that asks (`current_tenant`, `own_series`) needs no entry; others a reason here.
_SIGN_IN = (
    "asked before the tenant of a request is known; answers one question about one login, key or secret"
)
_DOOR = "says whether one device, gateway, user or certificate may come in, to who shows its digest"
_PKI = "a gateway that has no tenant yet, or no connection of one; answers about one MAC"
DOORS = {
    **dict.fromkeys(
        ("sign_in_begin", "sign_in_failed", "sign_in_succeeded", "rehash", "memberships_of", "principal_of",
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
        ("console_tenants", "console_make_tenant", "console_limit_tenant", "console_set_status"),
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


async def bare_tables(pool: asyncpg.Pool[Any]) -> list[str]:
    """Tables with tenant_id, without a policy, within reach of the API or of readers."""
    return await _names(
        pool,
        """
        select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = any(array['caudal', 'public']::regnamespace[]) and c.relkind in ('r', 'p')
          and a.attname = 'tenant_id' and not a.attisdropped
          and not (c.relrowsecurity and exists (select from pg_policy p where p.polrelid = c.oid))
          and (has_any_column_privilege('caudal_app', c.oid, 'select')
               or has_any_column_privilege('caudal_app', c.oid, 'insert')
               or has_any_column_privilege('caudal_app', c.oid, 'update')
               or has_table_privilege('caudal_app', c.oid, 'delete')
               or has_any_column_privilege('caudal_reader', c.oid, 'select'))
        """,
    )


async def leaky_views(pool: asyncpg.Pool[Any]) -> list[str]:
    """Views within reach that neither ask for the tenant behind a barrier nor have the caller's rights."""
    return await _names(
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


async def new_doors(pool: asyncpg.Pool[Any]) -> set[str]:
    """Functions with their owner's rights that do not ask for the tenant, and are not known here."""
    found = await _names(
        pool,
        "select distinct proname from pg_proc where pronamespace in ('caudal'::regnamespace, "
        "'public'::regnamespace) and prosecdef and has_function_privilege('caudal_app', oid, 'execute') "
        "and prosrc !~ 'current_tenant|own_series'",
    )
    return set(found) - set(DOORS)


async def test_every_table_with_a_tenant_has_row_security(pool: asyncpg.Pool[Any]) -> None:
    assert await bare_tables(pool) == []


@pytest.mark.parametrize("grant", ["select", "insert", "update (note)", "delete"])
async def test_a_new_table_without_a_policy_is_found(pool: asyncpg.Pool[Any], grant: str) -> None:
    await pool.execute(
        "create table caudal.fresh (tenant_id int not null, note text); "
        f"grant {grant} on caudal.fresh to caudal_app"
    )
    assert await bare_tables(pool) == ["caudal.fresh"]
    # Enabled without a policy shows nothing to anybody; a policy without being enabled holds nobody.
    await pool.execute(
        "create policy tenant on caudal.fresh using (tenant_id = (select caudal.current_tenant()))"
    )
    assert await bare_tables(pool) == ["caudal.fresh"]
    await pool.execute("alter table caudal.fresh enable row level security")
    assert await bare_tables(pool) == []


async def test_a_new_view_and_a_new_door_are_found(pool: asyncpg.Pool[Any]) -> None:
    await pool.execute(
        "create view public.fresh with (security_barrier) as select * from caudal.device; "
        "grant select on public.fresh to caudal_reader; "
        "create function caudal.everything() returns setof caudal.device language sql security definer "
        "set search_path = pg_catalog as 'select * from caudal.device'; "
        "grant execute on function caudal.everything() to caudal_app"
    )
    assert await leaky_views(pool) == ["fresh"]
    assert await new_doors(pool) == {"everything"}


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
        # An extension's own, which it shows to everybody (TimescaleDB's: names and bounds, no tenant's rows).
        "and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid "
        "and d.deptype = 'e') and has_table_privilege('caudal_reader', c.oid, 'select')",
    )
    assert tables == []
    assert not await pool.fetchval("select has_schema_privilege('caudal_reader', 'caudal', 'usage')")
    assert not await pool.fetchval("select has_schema_privilege('caudal_reader', 'public', 'create')")


async def test_views_within_reach_are_barriers(pool: asyncpg.Pool[Any]) -> None:
    assert await leaky_views(pool) == []


async def test_nothing_materialised_is_within_reach(pool: asyncpg.Pool[Any]) -> None:
    found = await _names(
        pool,
        "select oid::regclass::text from pg_class where relkind = 'm' and (has_table_privilege("
        "'caudal_app', oid, 'select') or has_table_privilege('caudal_reader', oid, 'select'))",
    )
    assert found == [], "row security does not hold on materialised views"


async def test_functions_with_their_owners_rights_are_known(pool: asyncpg.Pool[Any]) -> None:
    assert await new_doors(pool) == set(), "new doors across tenants"
    loose = await _names(
        pool,
        "select proname from pg_proc where pronamespace in ('caudal'::regnamespace, 'public'::regnamespace) "
        "and prosecdef and not coalesce(proconfig::text, '') like '%search_path%'",
    )
    assert loose == [], "security definer without a fixed search_path"
