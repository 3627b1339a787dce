"""What `caudal tenant`, `caudal people` and `caudal reader` stand on: the database's owner."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from caudal.app.tools import Installation, NoInstallation
from caudal.core import db
from caudal.registry import administration, readers, tenants
from caudal.registry.administration import PersonLine, Policy, Quota, TenantLine
from caudal.registry.installation import Status
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.readers import Reader, ReaderLine


class Administrator:
    """Acts on all tenants."""

    def __init__(self, pool: asyncpg.Pool[Any], passwords: Passwords) -> None:
        self._pool = pool
        self._passwords = passwords

    async def tenants(self, name: str | None = None) -> list[TenantLine]:
        """All tenants, or one."""
        async with self._pool.acquire() as connection:
            return await administration.tenants(connection, name)

    async def create_tenant(self, name: str, display_name: str | None, owner: str | None) -> str | None:
        """A tenant, and its owner where one is given: their password, None for who has one already."""
        if owner is not None:
            # Said before the tenant is there: a second attempt would find it taken.
            tenants.login_of(owner)
        await tenants.create_tenant(self._pool, name, display_name=display_name)
        await self._noted(name, "tenant.created", name)
        return None if owner is None else await self.add_person(owner, name, Role.OWNER)

    async def set_quota(self, name: str, quota: Quota) -> TenantLine:
        """Change quotas."""
        async with self._pool.acquire() as connection:
            return await administration.set_quota(connection, name, quota)

    async def set_status(self, name: str, status: Status) -> None:
        """Suspend or resume."""
        async with self._pool.acquire() as connection:
            await administration.set_status(connection, name, status)

    async def set_policy(self, name: str, policy: Policy) -> None:
        """What happens to unknown devices."""
        async with self._pool.acquire() as connection:
            await administration.set_policy(connection, name, policy)

    async def people(self, tenant: str | None) -> list[PersonLine]:
        """People and their roles."""
        async with self._pool.acquire() as connection:
            return await administration.people(connection, tenant)

    async def add_person(self, login: str, tenant: str, role: Role) -> str | None:
        """Somebody for a tenant: the password of who is new; who is known keeps their own, and joins."""
        known = await self._pool.fetchval(
            "select true from caudal.person where lower(username) = lower($1) or lower(email) = lower($1)",
            login,
        )
        if known:
            await self.set_role(login, tenant, role)
            return None
        password = secrets.token_urlsafe(15)
        await tenants.create_person(
            self._pool, self._passwords, tenant=tenant, role=role, password=password,
            **tenants.login_of(login),
        )  # fmt: skip
        await self._noted(tenant, "person.added", login)
        return password

    async def _noted(self, tenant: str, action: str, target: str) -> None:
        async with self._pool.acquire() as connection:
            await administration.noted(connection, tenant, action, target)

    async def set_role(self, login: str, tenant: str, role: Role | None) -> None:
        """Give a role, or take somebody out."""
        async with self._pool.acquire() as connection:
            await administration.set_role(connection, login, tenant, role)

    async def reset_password(self, login: str) -> str:
        """A new password."""
        async with self._pool.acquire() as connection:
            return await administration.reset_password(connection, self._passwords, login)

    async def readers(self, tenant: str | None) -> list[ReaderLine]:
        """Logins of the database."""
        return await readers.find(self._pool, tenant)

    async def create_reader(self, tenant: str, name: str) -> Reader:
        """A login of the database for one tenant."""
        return await readers.create_reader(self._pool, tenant, name)

    async def drop_reader(self, tenant: str, name: str) -> None:
        """Withdraw one."""
        await readers.drop_reader(self._pool, tenant, name)


@asynccontextmanager
async def administrator(installation: Installation) -> AsyncIterator[Administrator]:
    """The administrator of an installation. Raises NoInstallation when its database does not answer."""
    url = db.check(installation.database_url)
    try:
        pool = await db.open_pool(url, minimum=1, maximum=2, name="caudal administration")
    except Exception as error:
        if (sentence := db.explain(error, url)) is None:
            raise
        raise NoInstallation(sentence) from None
    passwords = Passwords(threads=1)
    try:
        yield Administrator(pool, passwords)
    finally:
        passwords.close()
        await pool.close()
