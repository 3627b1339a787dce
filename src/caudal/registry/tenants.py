"""Tenants and first people, made by the installation's administrator: the pool runs as the tables' owner."""

from __future__ import annotations

import re
import secrets
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role

# A tenant's name is a level of an MQTT topic, a word in user names, and nothing that needs quoting.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
USERNAME = re.compile(r"[A-Za-z0-9_]{3,50}")
EMAIL = re.compile(r"[^@\s\x00]{1,64}@[^@\s\x00]+\.[^@\s\x00.]+")
DEMO_PEOPLE = ("user_a", "user_b", "user_c")


class OneTimeSecret(msgspec.Struct, frozen=True):
    """What the first start made, to be shown once: nobody can read the password afterwards."""

    tenant: str
    email: str
    password: str


def login_of(login: str) -> dict[str, str]:
    """`login` as what it is, `email` or `username`. Raises InvalidInput for what can be neither."""
    if "@" in login:
        if not EMAIL.fullmatch(login) or len(login) > 254:
            raise InvalidInput(f"{login} is no e-mail address, such as ana@example.com.")
        return {"email": login}
    if not USERNAME.fullmatch(login):
        raise InvalidInput(
            "A user name is 3 to 50 letters, digits and underscores. Or give an e-mail address."
        )
    return {"username": login}


async def create_tenant(pool: asyncpg.Pool[Any], name: str, *, display_name: str | None = None) -> int:
    """A new tenant; returns its id. Raises InvalidInput, Conflict."""
    if not NAME.fullmatch(name):
        raise InvalidInput("A tenant's name is 1 to 100 letters, digits, dots, dashes and underscores.")
    try:
        made: int = await pool.fetchval(
            "insert into caudal.tenant(name, display_name) values ($1, $2) returning id", name, display_name
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"There is a tenant {name} already.") from error
    return made


async def create_person(
    pool: asyncpg.Pool[Any],
    passwords: Passwords,
    *,
    tenant: str,
    role: Role,
    password: str,
    username: str | None = None,
    email: str | None = None,
) -> UUID:
    """A new person with a role in a tenant; returns their id. Raises NotFound, Conflict."""
    hashed = await passwords.hash(password)
    async with pool.acquire() as connection, connection.transaction():
        tenant_id = await connection.fetchval("select id from caudal.tenant where name = $1", tenant)
        if tenant_id is None:
            raise NotFound(f"There is no tenant {tenant}. `caudal tenant list` shows those there are.")
        try:
            made: UUID = await connection.fetchval(
                "insert into caudal.person(username, email, password_hash) values ($1, $2, $3) returning id",
                username, email, hashed,
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise Conflict(f"{username or email} is taken.") from error
        await connection.execute(
            "insert into caudal.membership(tenant_id, person_id, role) values ($1, $2, $3)",
            tenant_id, made, role,
        )  # fmt: skip
    return made


async def bootstrap(
    pool: asyncpg.Pool[Any], *, tenant: str = "default", email: str = "owner@caudal.local"
) -> OneTimeSecret | None:
    """On an empty installation, a tenant and its owner; None when there is an owner somewhere already."""
    passwords = Passwords(threads=1)
    try:
        # One session holds the lock throughout: two processes that start at once make one owner.
        async with pool.acquire() as lock, lock.transaction():
            await lock.execute("select pg_advisory_xact_lock(hashtext('caudal bootstrap'))")
            if await lock.fetchval("select exists (select from caudal.membership where role = 'owner')"):
                return None
            if not await lock.fetchval("select exists (select from caudal.tenant where name = $1)", tenant):
                await create_tenant(pool, tenant)
            password = secrets.token_urlsafe(15)
            await create_person(
                pool, passwords, tenant=tenant, role=Role.OWNER, email=email, password=password
            )
            return OneTimeSecret(tenant, email, password)
    finally:
        passwords.close()


async def create_demo_people(pool: asyncpg.Pool[Any], *, tenant: str = "default") -> None:
    """user_a, user_b and user_c with the passwords that everybody knows: for `--demo` and nothing else."""
    passwords = Passwords(threads=2)
    try:
        for username in DEMO_PEOPLE:
            try:
                await create_person(
                    pool, passwords, tenant=tenant, role=Role.MEMBER, username=username,
                    email=f"{username}@demo.example", password=f"pass_{username[-1]}",
                )  # fmt: skip
            except Conflict:
                continue
    finally:
        passwords.close()
