"""The tenant that `caudal validate` works under: made, guarded, and gone afterwards whatever happened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from caudal.app.validate import ground
from caudal.app.validate.ground import MARK, TABLES, _children_first, prepared
from caudal.core.errors import Conflict, Unavailable
from caudal.registry.tenants import create_tenant


async def fill_and_fail(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    async with prepared(database_url, "probe") as ground:
        await ground.person("one")
        device = await pool.fetchval(
            "insert into caudal.device(tenant_id, name) values ($1, 'd') returning id", ground.tenant_id
        )
        series = await pool.fetchval(
            "insert into caudal.series(tenant_id, device_id, name) values ($1, $2, 'p') returning id",
            ground.tenant_id, device,
        )  # fmt: skip
        await pool.execute(
            "insert into caudal.sample(series, ts, received, v_num) values ($1, now(), now(), 1)", series
        )
        assert await ground.reader.fetchval("select count(*) from ts_measure") == 1
        raise ZeroDivisionError


async def test_whatever_happens_the_tenant_is_gone(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        await fill_and_fail(database_url, pool)
    for table in ("tenant", "device", "series", "sample", "person", "membership"):
        assert await pool.fetchval(f"select count(*) from caudal.{table}") == 0, table


async def conversation_of(pool: asyncpg.Pool[Any], tenant: int) -> int:
    made: int = await pool.fetchval(
        "insert into caudal.conversation(tenant_id, name) values ($1, 'c') returning id", tenant
    )
    return made


async def test_bytes_wait_for_the_sweep_and_the_tenant_does_not(
    database_url: str, pool: asyncpg.Pool[Any]
) -> None:
    async with prepared(database_url, "probe") as ground:
        conversation = await conversation_of(pool, ground.tenant_id)
        await pool.execute(
            "insert into caudal.file(id, tenant_id, conversation_id, uploader, filename, size_bytes,"
            " checksum, storage_path) values (gen_random_uuid(), $1, $2, 'x', 'f', 1, 'sha256:0', 'probe/f')",
            ground.tenant_id, conversation,
        )  # fmt: skip
    assert ground.objects == 1
    assert await pool.fetchval("select count(*) from caudal.tenant") == 0
    assert [tuple(row) for row in await pool.fetch("select path, tenant_id from caudal.object_intent")] == [
        ("probe/f", None)
    ]


async def test_what_is_on_its_way_to_a_router_is_waited_for(
    database_url: str, pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    async def look(_: float) -> None:
        looks.append(await pool.fetchval("select count(*) from caudal.message where routed_at is null"))
        if len(looks) == 4:
            await pool.execute("update caudal.message set routed_at = now()")

    async with prepared(database_url, "probe") as made:
        conversation = await conversation_of(pool, made.tenant_id)
        await pool.execute(
            "insert into caudal.message(id, tenant_id, conversation_id, place, sender, content, sent_at)"
            " values (gen_random_uuid(), $1, $2, 1, 'x', 'y', now())",
            made.tenant_id, conversation,
        )  # fmt: skip
        monkeypatch.setattr(ground, "asyncio", SimpleNamespace(sleep=look))
    assert looks == [1] * 4
    assert await pool.fetchval("select count(*) from caudal.message") == 0


async def test_what_a_killed_run_left_is_removed_by_the_next(
    database_url: str, pool: asyncpg.Pool[Any]
) -> None:
    number = await create_tenant(pool, "probe", display_name=MARK)
    await pool.execute("insert into caudal.device(tenant_id, name) values ($1, 'old')", number)
    async with prepared(database_url, "probe") as ground:
        assert await pool.fetchval("select count(*) from caudal.device") == 0
        assert ground.tenant_id != number


async def test_somebody_elses_tenant_is_left_alone(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    number = await create_tenant(pool, "acme")
    await pool.execute("insert into caudal.device(tenant_id, name) values ($1, 'pump')", number)
    with pytest.raises(Conflict, match="left alone"):
        async with prepared(database_url, "acme"):
            pytest.fail("not to be entered")
    assert await pool.fetchval("select count(*) from caudal.device") == 1


async def test_another_tenants_rows_stay(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    number = await create_tenant(pool, "acme")
    await pool.execute("insert into caudal.device(tenant_id, name) values ($1, 'pump')", number)
    async with prepared(database_url, "probe") as ground:
        await pool.execute("insert into caudal.device(tenant_id, name) values ($1, 'x')", ground.tenant_id)
        assert await ground.reader.fetchval("select count(*) from ts_measure") == 0
    assert [row["name"] for row in await pool.fetch("select name from caudal.device")] == ["pump"]


async def test_two_runs_at_once_are_one_too_many(database_url: str) -> None:
    async with prepared(database_url, "probe"):
        with pytest.raises(Conflict, match="under way"):
            async with prepared(database_url, "probe"):
                pytest.fail("not to be entered")


async def test_no_database_is_said_in_a_sentence() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        async with prepared("postgresql://nobody@127.0.0.1:1/none", "probe"):
            pytest.fail("not to be entered")


async def test_a_reader_may_not_be_the_administrator(database_url: str, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("drop role if exists validate_weak")
    await pool.execute("create role validate_weak login password 'weak'")
    try:
        weak = "postgresql://validate_weak:weak@" + database_url.rpartition("@")[2]
        with pytest.raises(Unavailable, match="administrator"):
            async with prepared(weak, "probe"):
                pytest.fail("not to be entered")
    finally:
        await pool.execute("drop role validate_weak")


async def test_every_table_that_knows_tenants_comes_before_what_it_refers_to(pool: asyncpg.Pool[Any]) -> None:
    rows = await pool.fetch(TABLES)
    order = _children_first(rows)
    assert sorted(order) == sorted(row["name"] for row in rows)
    for row in rows:
        for child in row["children"]:
            name = child.removeprefix("caudal.")
            assert name not in order or order.index(name) < order.index(row["name"]), (name, row["name"])
