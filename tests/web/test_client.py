"""The client against the running API."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.client import Client, Refused, Unreachable
from caudal.registry.people import Member
from caudal.registry.permissions import Role


async def test_it_signs_in_reads_pages_and_says_what_was_refused(running_api: Any) -> None:
    await running_api.person("a", Role.OWNER, username="ana")
    for _ in range(4):
        await running_api.person("a", Role.VIEWER)
    async with Client(running_api.url) as client:
        with pytest.raises(Refused) as wrong:
            await client.sign_in("ana", "not-hers")
        assert (wrong.value.status, wrong.value.code) == (401, "unauthenticated")
        assert wrong.value.request_id
        assert (await client.sign_in("ana", "secret")).tenant == "a"
        members = [member async for member in client.pages("/api/people", Member, limit=2)]
        assert len(members) == 5
        assert members[0].username == "ana"
        with pytest.raises(Refused, match="no such"):
            await client.delete("/api/keys/00000000-0000-0000-0000-000000000000")


async def test_nobody_there_is_one_sentence() -> None:
    async with Client("http://127.0.0.1:9") as client:
        with pytest.raises(Unreachable, match="does not answer"):
            await client.get("/api/me", dict)
