"""The cache that ingest reads: what it holds is never older than the last change it was told of."""

from __future__ import annotations

from typing import Any

import asyncpg

from caudal.registry.directory import Directory, DirectorySettings
from caudal.registry.entries import Wanted


async def test_a_change_during_a_fetch_is_not_missed(ingest_pool: asyncpg.Pool[Any]) -> None:
    directory = Directory(ingest_pool, DirectorySettings())
    tenant = await ingest_pool.fetchval("select id from caudal.tenant where name = 'acme'")
    wanted = Wanted("acme", "plant", "a")
    await directory.ensure([wanted])
    directory.forget_all()
    fetch, changed = directory._fetch, []

    async def slow(*arguments: Any) -> Any:
        found = await fetch(*arguments)
        if not changed:
            # Between the row's being read and its being remembered, it changes, and we are told so.
            changed.append(True)
            await ingest_pool.execute("update caudal.device set status = 'quarantined' where name = 'a'")
            directory.forget(f"device:{tenant}:a")
        return found

    directory._fetch = slow  # type: ignore[method-assign]
    await directory.ensure([wanted])
    found = directory.device("acme", "a")
    assert found is not None
    assert found.held
    assert directory.tenant("acme") is not None
