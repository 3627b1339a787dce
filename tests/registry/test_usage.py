"""What tenants keep is measured right, and who keeps too much is refused."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from caudal.app import api as composition
from caudal.core import db
from caudal.registry.administration import Quota, set_quota
from caudal.registry.permissions import Role
from caudal.registry.usage import measure


async def test_everything_that_is_kept_is_counted(pool: asyncpg.Pool[Any]) -> None:
    await pool.execute(
        """
        with t as (insert into caudal.tenant(name) values ('acme'), ('rival') returning id, name),
        o as (select id from t where name = 'acme'),
        l as (insert into caudal.ledger(day, tenant_id, writer, stored, first_received, last_received)
              select d, id, w, 500, now(), now()
              from o, (values (date '2026-01-01', 'a'), ('2026-01-02', 'a'), ('2026-01-02', 'b')) x(d, w)),
        e as (insert into caudal.expired(tenant_id, kind, parts) select id, 'sample', 300 from o),
        x as (insert into caudal.dead_letter
                (tenant_id, tenant_name, topic, payload, reason, sentence, received, digest)
              select id, 'acme', 't', repeat('x', 1000)::bytea, 'r', 's', now(), '' from o)
        insert into caudal.held_message(tenant_id, device_name, topic, payload, received, digest)
        select id, 'd', 't', repeat('x', 200)::bytea, now(), '' from o
        """
    )
    assert await measure(pool) == 0
    row = await pool.fetchrow("select u.* from caudal.usage u join caudal.tenant t on t.id = tenant_id"
                              " where t.name = 'acme'")  # fmt: skip
    assert row is not None
    assert (row["points"], row["dead_letter_bytes"], row["held_bytes"]) == (1200, 1300, 500)
    assert (row["storage_bytes"], row["over"]) == (1200 * 100 + 1300 + 500, False)
    async with pool.acquire() as connection:
        assert (await set_quota(connection, "acme", Quota(storage_bytes=121_800))).full
        assert not (await set_quota(connection, "acme", Quota(storage_bytes=121_801))).full
        assert (await set_quota(connection, "acme", Quota(storage_bytes=1))).full
    # Room again, also for who lost the quota altogether; the other tenant was never asked about.
    await pool.execute("delete from caudal.quota")
    assert await measure(pool, limited=True) == 1
    assert await pool.fetchval("select bool_or(over) from caudal.usage") is False


async def test_no_room_for_files(unstarted_api: Any, database_url: str) -> None:
    for domain in composition.DOMAINS:
        await domain(unstarted_api.life, unstarted_api.parts)
    api = await unstarted_api.start()
    headers = await api.headers("acme", Role.MEMBER)

    async def upload() -> Any:
        form = {"data": {"conversation_id": "c"}, "files": {"file": ("a.txt", b"hello", "text/plain")}}
        return await api.client.post("/v1/files", headers=headers, **form)

    assert (await upload()).status_code in (200, 201)
    await measure(api.admin)
    async with api.admin.acquire() as connection:
        shown = await set_quota(connection, "acme", Quota(storage_bytes=5))
    assert (shown.used_bytes, shown.full) == (5, True)
    refused = await upload()
    assert (refused.status_code, refused.json()["code"]) == (413, "storage_full")
    # What a provider brings is kept: whoever wrote it cannot know.
    tenant = await api.admin.fetchval("select id from caudal.tenant where name = 'acme'")
    intend = "insert into caudal.object_intent(path, tenant_id) values ($1, $2)"
    messaging = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_messaging")
    try:
        await messaging.execute(intend, "from-provider", tenant)
    finally:
        await messaging.close()
    with pytest.raises(asyncpg.CheckViolationError):
        async with db.tenant_transaction(api.parts.pool, "acme") as connection:
            await connection.execute(intend, "from-a-person", tenant)
    async with api.admin.acquire() as connection:
        await set_quota(connection, "acme", Quota(storage_bytes=None))
    assert (await upload()).status_code in (200, 201)
