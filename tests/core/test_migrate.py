import asyncio

import asyncpg
import pytest

from caudal.core import db
from caudal.core.migrate import ROLES, MigrationError, migrate, migrations


async def test_two_processes_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    one, two = await asyncio.gather(migrate(empty_database_url), migrate(empty_database_url))
    assert sorted([len(one), len(two)]) == [0, len(migrations())]


async def test_a_changed_migration_is_refused(database_url: str, pool: asyncpg.Pool) -> None:
    await pool.execute("update caudal.migration set digest = 'other' where number = 1")
    with pytest.raises(MigrationError, match="0001"):
        await migrate(database_url)


async def test_a_newer_database_is_refused(database_url: str, pool: asyncpg.Pool) -> None:
    await pool.execute("insert into caudal.migration(number, name, digest) values (9999, 'future', '')")
    with pytest.raises(MigrationError, match="newer"):
        await migrate(database_url)


async def test_a_stray_of_a_fast_clock_moves_to_its_day(pool: asyncpg.Pool, hypertable: bool) -> None:
    if hypertable:
        await a_stray_moves_to_its_week(pool)
        return
    ahead = "date_trunc('day', now()) + interval '40 days'"
    await pool.execute(f"insert into caudal.sample(series, ts, received) values (1, {ahead}, now())")
    assert await pool.fetchval("select count(*) from caudal.sample_default") == 1
    await pool.execute("update caudal.sample_default set ts = ts - interval '20 days'")
    label = await pool.fetchval(f"select caudal.ensure_partition({ahead} - interval '20 days')")
    assert await pool.fetchval("select count(*) from caudal.sample_default") == 0
    assert await pool.fetchval(f"select count(*) from caudal.{label}") == 1


async def a_stray_moves_to_its_week(pool: asyncpg.Pool) -> None:
    """The same on TimescaleDB, where two months have passed since its chunk of the future was made."""
    far = "(select name from caudal.chunks() where wide and past > now())"
    await pool.execute(f"do $$ begin execute 'drop table ' || {far}; end $$")
    await pool.execute(
        "select caudal.wide_chunk(date_trunc('day', now()) + interval '5 days', '10001-01-01Z')"
    )
    await pool.execute(
        "insert into caudal.sample(series, ts, received)"
        " select 1, now() + d * interval '1 day', now() from unnest(array[1, 6, 20, 3000]) d"
    )
    assert await pool.fetchval("select count(*) from caudal.chunks() where not wide") == 1
    for days in (4, 40, 20, 21):
        await pool.execute("select caudal.ensure_partition(now() + make_interval(days => $1))", days)
    chunks = await pool.fetch("select past - first as width, wide from caudal.chunks()")
    assert sorted(row["width"].days for row in chunks if not row["wide"])[-1] == 7
    assert sum(row["wide"] for row in chunks) == 2
    where = (
        "select array_agg(c.wide order by s.ts) from caudal.sample s"
        " join caudal.chunks() c on c.name = s.tableoid"
    )
    assert await pool.fetchval(where) == [False, False, False, True]


async def test_clocks_that_are_centuries_off_share_a_partition(pool: asyncpg.Pool) -> None:
    await pool.execute("insert into caudal.sample(series, ts, received)"
                       " select 1, make_timestamptz(y, 1, 1, 0, 0, 0), now() from generate_series(1, 9999) y"
                       " where y not between 1980 and 2100")  # fmt: skip
    assert await pool.fetchval("select count(distinct tableoid) from caudal.sample") <= 2


async def test_old_months_get_one_partition_each_and_are_dropped_by_age(
    pool: asyncpg.Pool, hypertable: bool
) -> None:
    if hypertable:  # a week each, made as rows come
        days = "unnest(array['2016-07-02Z', '2016-07-06Z', '2016-08-01Z']::timestamptz[])"
        await pool.execute(
            f"insert into caudal.sample(series, ts, received) select 1, ts, now() from {days} ts"
        )
        assert len(await pool.fetch("select caudal.drop_partitions('10 days'::interval)")) == 2
        assert await pool.fetchval("select count(*) from caudal.chunks() where not wide") == 0
        assert await pool.fetchval("select sum(parts) from caudal.expired") == 3
        return
    labels = {await pool.fetchval("select caudal.ensure_partition($1::text::timestamptz)", at)
              for at in ("2016-07-01T00:00Z", "2016-07-31T23:59Z", "2016-08-01T00:00Z")}  # fmt: skip
    assert labels == {"sample_201607", "sample_201608"}
    dropped = {row[0] for row in await pool.fetch("select caudal.drop_partitions('10 days'::interval)")}
    assert labels <= dropped
    assert "sample_default" not in dropped


@pytest.mark.parametrize("made_them", [True, False])
async def test_an_owner_without_an_administrators_rights_becomes_the_roles_it_made(
    empty_database_url: str, made_them: bool
) -> None:
    await migrate(empty_database_url)  # the roles are the server's, and may be there already
    administrator = await asyncpg.connect(empty_database_url)
    name, database = "plain_owner", empty_database_url.rpartition("/")[2]
    try:
        await administrator.execute("drop schema caudal cascade")
        await administrator.execute(f"create role {name} login createrole password 'p'")
        await administrator.execute(f'alter database "{database}" owner to {name}')
        modern = administrator.get_server_version().major >= 16
        if made_them and modern:
            for (
                role
            ) in ROLES:  # as whoever makes a role has it; before 16 they had nothing, and could grant all
                await administrator.execute(
                    f"grant {role} to {name} with admin true, inherit false, set false"
                )
        await administrator.execute(f"grant all on schema public to {name}")
        for view in await administrator.fetch("select viewname from pg_views where schemaname = 'public'"):
            await administrator.execute(f'drop view public."{view[0]}" cascade')
        address = empty_database_url.rpartition("@")[2]
        url = f"postgresql://{name}:p@{address}"
        if not made_them and modern:
            with pytest.raises(MigrationError, match="caudal_app"):
                await migrate(url)
            return
        await migrate(url)
        for role in ROLES:
            pool = await db.open_pool(url, minimum=1, maximum=1, role=role)
            assert await pool.fetchval("select current_user") == role
            await pool.close()
    finally:
        await administrator.execute(f'alter database "{database}" owner to current_user')
        await administrator.execute(f"drop owned by {name} cascade; drop role {name}")
        await administrator.close()
