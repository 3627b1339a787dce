"""What upkeep compresses, and what comes to a compressed chunk afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from caudal.app import upkeep
from caudal.app.ingest import build_pipeline
from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.migrate import ROLES, migrate
from caudal.mqtt.ports import Principal
from caudal.telemetry import maintenance
from caudal.telemetry.ledger import verify
from caudal.telemetry.maintenance import Maintenance, RetentionSettings
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.submit import submit
from tests.conftest import administer, at_database

COMPRESSED = """
select count(*) from timescaledb_information.chunks where hypertable_name = 'sample' and is_compressed
"""


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    opened = await db.open_pool(database_url, minimum=1, maximum=3)
    yield opened
    await opened.close()


@pytest.fixture
async def as_upkeep(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    opened = await db.open_pool(database_url, minimum=1, maximum=3, role=upkeep.ROLE)
    yield opened
    await opened.close()


@pytest.fixture
async def pipeline(database_url: str) -> AsyncIterator[Pipeline]:
    life = Lifecycle()
    yield await build_pipeline(
        life, database_url, IngestSettings(unknown_tenants="register"), Metrics(), worker="t"
    )
    await life.stop()


def job(pool: asyncpg.Pool[Any], **settings: int) -> Maintenance:
    return Maintenance(pool, RetentionSettings(**settings), Metrics())


def reading(at: datetime, value: float, points: int = 1) -> tuple[str, bytes, Principal]:
    named = ",".join(f'{{"name":"t{number}","v":{value}}}' for number in range(points))
    payload = f'{{"schema":"v1","ts":"{at:%Y-%m-%dT%H:%M:%SZ}","points":[{named}]}}'
    return "traksense/acme/plant/chiller/telem", payload.encode(), Principal("test")


def weeks_ago(weeks: int) -> datetime:
    """Noon of the second day of a chunk that many weeks ago: chunks begin on Thursdays, as the epoch did."""
    day = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return day - timedelta(days=(day.weekday() - 4) % 7 + 7 * weeks)


async def test_upkeep_compresses_what_is_old_and_late_rows_come_right(
    admin: asyncpg.Pool[Any], as_upkeep: asyncpg.Pool[Any], pipeline: Pipeline
) -> None:
    at = weeks_ago(4)
    for when in (at, weeks_ago(3), datetime.now(UTC)):
        assert (await submit(pipeline, [reading(when, 7.5)]))[0].tally.stored == 1
    assert len(await job(as_upkeep).compression()) == 2
    assert await admin.fetchval(COMPRESSED) == 2
    assert await job(as_upkeep).compression() == []  # nothing is left to do
    late = at + timedelta(minutes=1)
    assert (await submit(pipeline, [reading(late, 9)]))[0].tally.stored == 1
    assert (
        await job(as_upkeep).compression()
    ) != []  # with the late row beside it, it is compressed once more
    for _ in range(2):  # to a chunk compressed whole, and then to what the first one's check has left of it
        for when, kept in ((at, 7.5), (late, 9)):
            assert (await submit(pipeline, [reading(when, kept)]))[0].tally.duplicates == 1
            dead = (await submit(pipeline, [reading(when, 8)]))[0].dead
            assert [letter.reason for letter in dead] == ["conflict"]
    rows = await admin.fetch(
        "select ts, v_num from ts_measure where ts < now() - interval '25 days' order by ts"
    )
    assert [tuple(row) for row in rows if row["ts"] < at + timedelta(days=1)] == [(at, 7.5), (late, 9.0)]
    async with admin.acquire() as connection:
        assert all(check.agrees for check in await verify(connection))


async def test_young_chunks_and_those_of_strays_are_let_be(
    admin: asyncpg.Pool[Any], as_upkeep: asyncpg.Pool[Any], pipeline: Pipeline
) -> None:
    stray = datetime(1970, 1, 1, tzinfo=UTC)
    for when in (stray, datetime(9999, 12, 31, tzinfo=UTC), weeks_ago(4), datetime.now(UTC)):
        assert (await submit(pipeline, [reading(when, 1)]))[0].tally.stored == 1
    assert await job(as_upkeep, compress_days=0).compression() == []
    assert await job(as_upkeep, compress_days=60).compression() == []
    assert len(await job(as_upkeep).compression()) == 1
    assert await admin.fetchval(COMPRESSED) == 1
    await admin.execute("delete from caudal.rollup_log")
    await admin.execute("delete from caudal.rollup_stale")
    await job(as_upkeep, retention_days=10).retention()
    assert await admin.fetchval("select array_agg(extract(year from ts) order by ts) from caudal.sample") == [
        datetime.now(UTC).year, 9999
    ]  # fmt: skip
    assert await admin.fetchval("select parts from caudal.expired") == 2
    async with admin.acquire() as connection:
        assert all(check.agrees for check in await verify(connection))


async def test_a_chunk_that_fails_keeps_no_other_from_its_turn(
    admin: asyncpg.Pool[Any], as_upkeep: asyncpg.Pool[Any], pipeline: Pipeline
) -> None:
    for weeks in (5, 4, 3):
        await submit(pipeline, [reading(weeks_ago(weeks), 1)])
    first = await admin.fetchval("select name::text from caudal.chunks() where not wide limit 1")
    async with admin.acquire() as busy, busy.transaction():
        await busy.execute(f"lock table {first} in access exclusive mode")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await job(as_upkeep).compression()
        assert await admin.fetchval(COMPRESSED) == 2
    assert await job(as_upkeep).compression() == [first]


async def test_a_turn_is_bounded_and_one_process_has_it(
    admin: asyncpg.Pool[Any],
    as_upkeep: asyncpg.Pool[Any],
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for weeks in (5, 4, 3):
        await submit(pipeline, [reading(weeks_ago(weeks), 1)])
    async with admin.acquire() as other, other.transaction():
        await other.execute("select pg_advisory_xact_lock(hashtext('caudal.sample compression'))")
        assert await job(as_upkeep).compression() == []
    monkeypatch.setattr(maintenance, "CHUNKS_AT_ONCE", 2)
    assert [len(await job(as_upkeep).compression()) for _ in range(3)] == [2, 1, 0]


async def test_upkeep_may_compress_chunks_of_samples_alone(as_upkeep: asyncpg.Pool[Any]) -> None:
    for name in ("caudal.tenant", "caudal.sample", "nonsense", "_timescaledb_internal.none"):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await as_upkeep.fetchval("select caudal.compress_chunk($1)", name)
    for call in ("caudal.chunks()", "caudal.far_chunk()", "caudal.ensure_chunk(now())"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await as_upkeep.fetch(f"select {call}")


async def test_a_fleet_is_late_and_its_old_samples_go(
    admin: asyncpg.Pool[Any], as_upkeep: asyncpg.Pool[Any], pipeline: Pipeline
) -> None:
    """More compressed rows are looked at than TimescaleDB allows a statement by default (100,000)."""
    at = weeks_ago(4)
    assert (await submit(pipeline, [reading(at, 1, 200)]))[0].tally.stored == 200
    await admin.execute(
        "insert into caudal.sample(series, ts, received, v_num)"
        " select r.id, $1::timestamptz + n * interval '1 minute', now(), n"
        " from caudal.series r, generate_series(1, 1000) n",
        at,
    )  # fmt: skip
    assert len(await job(as_upkeep).compression()) == 1
    tally = (await submit(pipeline, [reading(at + timedelta(seconds=30), 2, 200)]))[0]
    assert (tally.tally.stored, tally.dead) == (200, [])
    assert (await submit(pipeline, [reading(at + timedelta(minutes=9), 9, 200)]))[0].tally.duplicates == 200
    await job(as_upkeep).compression()
    await admin.execute("update caudal.tenant set retention_days = 1")
    await admin.execute("delete from caudal.rollup_log")
    await admin.execute("delete from caudal.rollup_stale")
    await job(as_upkeep).retention()
    assert await admin.fetchval("select count(*) from caudal.sample") == 0
    assert await admin.fetchval("select parts from caudal.expired") == 200 * 1002


@pytest.mark.parametrize("role", ["caudal_reader", "caudal_app", "caudal_messaging", "caudal_upkeep"])
async def test_no_chunk_and_nothing_compressed_is_within_reach(
    admin: asyncpg.Pool[Any], as_upkeep: asyncpg.Pool[Any], pipeline: Pipeline, database_url: str, role: str
) -> None:
    secret = "unmistakable"
    await submit(pipeline, [reading(weeks_ago(4), 1)])
    await admin.execute("update caudal.sample set v_text = $1, v_num = null", secret)
    await submit(pipeline, [reading(datetime.now(UTC), 1)])
    assert len(await job(as_upkeep).compression()) == 1
    # Statistics of the columns are where a compressed value's bounds would show, too.
    await admin.execute("analyze")
    connection = await asyncpg.connect(database_url)
    try:
        # The administrator finds the rows in the extension's own schema, or this would prove nothing.
        tables = (
            "select format('%I.%I', n.nspname, c.relname) from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname ~ '^_?timescaledb' and c.relkind in ('r', 'v', 'p', 'm', 'f')"
        )
        names = [row[0] for row in await connection.fetch(tables)]
        chunks = {name for name in names if "_hyper_" in name}
        assert len(chunks) > 2
        held = {row[0] for name in chunks for row in await connection.fetch(f"select x::text from {name} x")}
        assert any(secret in text for text in held)
        granted = await connection.fetch(
            "select c.relname, p from pg_class c, unnest(array['select', 'insert', 'update', 'references']) p"
            " where c.relname like '%\\_hyper\\_%' and (has_any_column_privilege($1, c.oid, p)"
            " or has_table_privilege($1, c.oid, 'delete') or has_table_privilege($1, c.oid, 'truncate'))",
            role,
        )  # fmt: skip
        assert granted == []
        await connection.execute(f"set role {role}")
        found = []
        for name in names:
            try:
                rows = await connection.fetch(f"select x::text from {name} x")
            except (
                asyncpg.PostgresError
            ):  # no right to it, or none to read what is compressed as it lies there
                continue
            assert name not in chunks, f"{role} reads {name}"
            found += [name for row in rows if secret in row[0] or "acme" in row[0]]
        assert found == []
        assert [
            row for row in await connection.fetch("select s::text from pg_stats s") if secret in row[0]
        ] == []
        for call in (
            "select drop_chunks('caudal.sample', now())",
            "select compress_chunk(c) from show_chunks('caudal.sample') c",
            "select decompress_chunk(c) from show_chunks('caudal.sample') c",
        ):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
                await connection.fetch(call)
    finally:
        await connection.close()


async def test_an_owner_without_an_administrators_rights_has_a_hypertable_too(database_url: str) -> None:
    server, name = database_url, f"{database_url.rpartition('/')[2]}_plain"
    owner = f"{name}_owner"
    await administer(
        server, f"create role {owner} login createrole password 'p'", f"create database {name} owner {owner}"
    )
    try:
        administrator = await asyncpg.connect(at_database(server, name))
        await administrator.execute("create extension timescaledb")
        await administrator.close()
        await administer(server, *(f"grant {role} to {owner}" for role in ROLES))
        url = at_database(f"postgresql://{owner}:p@{server.rpartition('@')[2]}", name)
        await migrate(url)
        connection = await asyncpg.connect(url)
        await connection.execute(
            "insert into caudal.sample(series, ts, received) values (1, '2016-07-01Z', now())"
        )
        await connection.execute("set role caudal_upkeep")
        chunk = await connection.fetchval("select caudal.compressible_chunks(7)")
        assert await connection.fetchval("select caudal.compress_chunk($1)", chunk)
        await connection.execute("reset role")
        assert await connection.fetchval(COMPRESSED) == 1
        await connection.close()
    finally:
        await administer(server, f"drop database {name} with (force)", f"drop role {owner}")
