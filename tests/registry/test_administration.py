"""`caudal tenant`, `caudal people`, `caudal reader`: as an administrator runs them, and what they change."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import click
import msgspec
import pytest
from click.testing import CliRunner

from caudal.cli import people, reader, tenant
from caudal.core.errors import CaudalError
from caudal.registry.permissions import Role


class Shell:
    """The commands as `main` runs them, in a thread: each brings an event loop of its own."""

    def __init__(self, database_url: str) -> None:
        self._environ = {"DATABASE_URL": database_url, "COLUMNS": "200"}

    async def run(self, group: click.Group, *arguments: str, status: int = 0) -> str:
        came = await asyncio.to_thread(CliRunner(env=self._environ).invoke, group, arguments)
        if isinstance(came.exception, CaudalError):
            assert status == 2, came.exception
            return came.exception.sentence
        assert came.exit_code == status, (came.output, came.exception)
        return came.output


@pytest.fixture
def shell(database_url: str) -> Shell:
    return Shell(database_url)


async def sign_in(api: Any, login: str, password: str) -> int:
    field = "email" if "@" in login else "username"
    answer = await api.client.post("/auth/token", json={field: login, "password": password})
    return int(answer.status_code)


async def test_a_tenant_and_its_owner(running_api: Any, shell: Shell) -> None:
    made = await shell.run(tenant.command, "create", "acme", "--owner", "ana@example.com")
    password = made.split()[-1]
    assert await sign_in(running_api, "ana@example.com", password) == 200
    assert "already" in await shell.run(tenant.command, "create", "acme", status=2)
    assert "letters" in await shell.run(tenant.command, "create", "a/b", status=2)
    # Who has a password keeps it, and belongs to both.
    assert "password" not in await shell.run(tenant.command, "create", "beta", "--owner", "Ana@example.com")
    said = await shell.run(people.command, "add", "ben", "--tenant", "acme", "--role", "owner")
    assert said.startswith("login ben\nrole owner\ntenant acme\npassword ")
    assert "Nobody" in await shell.run(people.command, "reset-password", "nobody", status=2)
    # What can be nobody's name is said to be none, with nothing made and nothing of the row shown.
    for wrong in ("x y", "ab", "a@b", "@example.com", "a" * 51):
        for words in (
            (people.command, "add", wrong, "--tenant", "acme"),
            (tenant.command, "create", "delta", "--owner", wrong),
        ):
            said = await shell.run(*words, status=2)
            assert "e-mail address" in said
            assert "argon2" not in said
    assert "tenant list" in await shell.run(people.command, "add", "carl", "--tenant", "delta", status=2)
    # A script reads names, not places in a line.
    said = await shell.run(tenant.command, "create", "gamma", "--owner", "gil@example.com", "--json")
    found = msgspec.json.decode(said)
    assert (found.keys(), found["owner"]) == ({"tenant", "owner", "password"}, "gil@example.com")
    assert await sign_in(running_api, "gil@example.com", found["password"]) == 200
    said = await shell.run(people.command, "reset-password", "gil@example.com", "--json")
    assert await sign_in(running_api, "gil@example.com", msgspec.json.decode(said)["password"]) == 200
    assert "none" in await shell.run(reader.command, "list", "--tenant", "gamma")
    listed = await shell.run(people.command, "list", "--tenant", "acme")
    assert "ana@example.com" in listed
    assert "ben" in listed


async def test_suspended_and_resumed(running_api: Any, shell: Shell) -> None:
    _, headers = await running_api.person("acme", Role.OWNER, username="ana")
    key = await running_api.client.post(
        "/api/keys", headers=headers, json={"name": "panel", "scopes": ["registry:read"]}
    )
    assert key.status_code == 201, key.text
    by_key = {"X-API-Key": key.json()["key"]}

    async def doors() -> list[int]:
        """A token, an API key, a password, and the console's form."""
        return [
            (await running_api.client.get("/api/me", headers=headers)).status_code,
            (await running_api.client.get("/api/devices", headers=by_key)).status_code,
            await sign_in(running_api, "ana", "secret"),
            (
                await running_api.client.post("/console/sign-in", data={"login": "ana", "password": "secret"})
            ).status_code,
        ]

    assert await doors() == [200, 200, 200, 303]
    await shell.run(tenant.command, "suspend", "acme")
    assert await doors() == [401, 401, 403, 403]
    assert "suspended" in await shell.run(tenant.command, "list")
    await shell.run(tenant.command, "resume", "acme")
    assert await doors() == [200, 200, 200, 303]
    entries = (await running_api.client.get("/api/audit", headers=headers)).json()["items"]
    assert [entry["action"] for entry in entries[:2]] == ["tenant.active", "tenant.suspended"]
    assert entries[0]["actor"] == "operator"


async def test_quotas_are_changed_shown_and_in_force(running_api: Any, shell: Shell) -> None:
    headers = await running_api.headers("acme")
    await shell.run(tenant.command, "quota", "acme", "--requests", "2", "--storage", "10GiB", "--series", "7")
    answers = await asyncio.gather(
        *(running_api.client.get("/api/quotas", headers=headers) for _ in range(6))
    )
    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    shown = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (shown["requests_per_second"], shown["storage_bytes"], shown["max_series"]) == (2, 10 * 2**30, 7)
    assert (shown["storage_used"], shown["points"], shown["full"]) == (0, 0, False)
    assert "Retry-After" in next(answer for answer in answers if answer.status_code == 429).headers
    await shell.run(tenant.command, "quota", "acme", "--requests", "none", "--messages", "5k")
    listed = msgspec.json.decode(await shell.run(tenant.command, "quota", "acme", "--json"))
    assert (listed[0]["requests_per_second"], listed[0]["messages_per_second"]) == (None, 5000)
    for wrong in ("0", "9" * 18, "-1", "many", "1X"):
        await shell.run(tenant.command, "quota", "acme", "--requests", wrong, status=2)
    await shell.run(tenant.command, "quota", "acme", "--series", "none", status=2)
    assert "no tenant" in await shell.run(tenant.command, "quota", "nobody", "--points", "1", status=2)


async def test_who_is_locked_out_comes_back(running_api: Any, shell: Shell) -> None:
    await running_api.person("acme", Role.OWNER, username="ana")
    assert {await sign_in(running_api, "ana", "wrong") for _ in range(6)} == {401}
    assert await sign_in(running_api, "ana", "secret") == 401
    password = (await shell.run(people.command, "reset-password", "ANA")).split()[-1]
    assert await sign_in(running_api, "ana", password) == 200
    assert "at least one owner" in await shell.run(
        people.command, "role", "ana", "viewer", "--tenant", "acme", status=2
    )
    assert "at least one owner" in await shell.run(
        people.command, "remove", "ana", "--tenant", "acme", status=2
    )


async def test_readers(running_api: Any, shell: Shell, database_url: str) -> None:
    await running_api.tenant("acme")
    said = await shell.run(reader.command, "create", "analyst", "--tenant", "acme")
    login, password = said.split()[1], said.split()[3]
    assert login in await shell.run(reader.command, "list")
    url = f"postgresql://{login}:{password}@{database_url.rsplit('@', 1)[1]}"
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    assert await connection.fetch("select * from ts_measure") == []
    await connection.close()
    assert "already" in await shell.run(reader.command, "create", "analyst", "--tenant", "acme", status=2)
    await shell.run(reader.command, "drop", "analyst", "--tenant", "acme")
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(url)
