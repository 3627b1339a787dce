import asyncio

import asyncpg
import pytest

from caudal.core.migrate import MigrationError, migrate, migrations


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


async def test_a_stray_of_a_fast_clock_moves_to_its_day(pool: asyncpg.Pool) -> None:
    ahead = "date_trunc('day', now()) + interval '40 days'"
    await pool.execute(f"insert into caudal.sample(series, ts, received) values (1, {ahead}, now())")
    assert await pool.fetchval("select count(*) from caudal.sample_default") == 1
    await pool.execute("update caudal.sample_default set ts = ts - interval '20 days'")
    label = await pool.fetchval(f"select caudal.ensure_partition({ahead} - interval '20 days')")
    assert await pool.fetchval("select count(*) from caudal.sample_default") == 0
    assert await pool.fetchval(f"select count(*) from caudal.{label}") == 1


async def test_old_months_get_one_partition_each_and_are_dropped_by_age(pool: asyncpg.Pool) -> None:
    labels = {await pool.fetchval("select caudal.ensure_partition($1::text::timestamptz)", at)
              for at in ("2016-07-01T00:00Z", "2016-07-31T23:59Z", "2016-08-01T00:00Z")}  # fmt: skip
    assert labels == {"sample_201607", "sample_201608"}
    dropped = {row[0] for row in await pool.fetch("select caudal.drop_partitions('10 days'::interval)")}
    assert labels <= dropped
    assert "sample_default" not in dropped
