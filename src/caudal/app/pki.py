"""What `caudal pki` does: the platform's operator, who signs in as the database's owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from caudal.app.tools import Installation
from caudal.app.up import secrets_of
from caudal.core import db
from caudal.core.errors import NotFound
from caudal.core.seal import Sealer
from caudal.core.settings import load
from caudal.registry import credentials, rules
from caudal.registry.pki import authority as ca
from caudal.registry.pki import bootstrap, certificates, registrations, renewal, revocation
from caudal.registry.pki.bootstrap import Bootstrap, NewBootstrap
from caudal.registry.pki.certificates import Certificate, Generated
from caudal.registry.pki.registrations import Approval, Approved, Registration
from caudal.registry.pki.settings import PkiSettings
from caudal.registry.settings import PeopleSettings, sealer_of

BY = "operator"


class Operator:
    """Acts on all tenants. What belongs to one is done as the API's role, in that tenant's transaction."""

    def __init__(
        self, owner: asyncpg.Pool[Any], app: asyncpg.Pool[Any], sealer: Sealer, settings: PkiSettings
    ) -> None:
        self._owner = owner
        self._app = app
        self._sealer = sealer
        self._settings = settings

    async def _tenant(self, name: str) -> int:
        found = await self._owner.fetchval("select id from caudal.tenant where name = $1", name)
        if found is None:
            raise NotFound(f"There is no tenant {name!r}.")
        return int(found)

    async def init(self) -> str:
        """Make the authority and its first, empty list; returns its certificate. Raises Conflict."""
        async with self._owner.acquire() as connection, connection.transaction():
            made = await ca.create(connection, self._sealer, days=self._settings.pki_authority_days)
            await revocation.write(connection, made, self._settings.pki_crl_hours)
        return made.pem

    async def authority(self) -> str:
        """The authority's certificate."""
        async with self._owner.acquire() as connection:
            return await ca.certificate_pem(connection)

    async def revocation_list(self, *, pem: bool) -> bytes:
        """The newest list."""
        async with self._owner.acquire() as connection:
            der = await revocation.current(connection)
        return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) if pem else der

    async def server(self, hosts: list[str], days: int) -> ca.Pair:
        """A key and certificate for a listener of ours; neither is kept here."""
        async with self._owner.acquire() as connection:
            return ca.make_server(await ca.load(connection, self._sealer), hosts, days)

    async def new_bootstrap(self, label: str, tenant: str | None) -> NewBootstrap:
        """A bootstrap certificate, of a tenant or of the whole platform."""
        number = None if tenant is None else await self._tenant(tenant)
        async with self._owner.acquire() as connection, connection.transaction():
            return await bootstrap.create(
                connection, self._sealer, self._settings, label, tenant=number, by=BY
            )

    async def bootstraps(self) -> list[Bootstrap]:
        """All bootstrap certificates."""
        async with self._owner.acquire() as connection:
            return await bootstrap.find(connection)

    async def revoke_bootstrap(self, number: int, reason: str) -> Bootstrap:
        """End one."""
        async with self._owner.acquire() as connection, connection.transaction():
            return await bootstrap.revoke(connection, self._sealer, self._settings, number, reason)

    async def pending(self) -> list[Registration]:
        """Registrations that wait for a decision, of all tenants and of none."""
        async with self._owner.acquire() as connection:
            return (await registrations.find(connection, status="pending", limit=200)).items

    async def approve(self, number: int, tenant: str, given: Approval) -> Approved:
        """Approve a registration into a tenant. One that awaits another tenant's people is left to them."""
        owner = await self._tenant(tenant)
        taken = await self._owner.fetchval(
            "update caudal.registration set tenant_id = $2"
            " where id = $1 and (tenant_id is null or tenant_id = $2) returning id",
            number,
            owner,
        )
        rules.existing(taken, f"registration for {tenant}")
        async with db.tenant_transaction(self._app, tenant) as connection:
            return await registrations.approve(connection, self._sealer, self._settings, number, given, by=BY)

    async def reject(self, number: int, reason: str) -> Registration:
        """Refuse a registration."""
        async with self._owner.acquire() as connection, connection.transaction():
            return await registrations.reject(connection, number, reason, by=BY)

    async def certificates(self, search: str | None, after: int | None = None) -> list[Certificate]:
        """Certificates of all tenants."""
        async with self._owner.acquire() as connection:
            return (await certificates.find(connection, search=search, after=after, limit=200)).items

    async def generate(self, mac: str) -> Generated:
        """A key and certificate to burn into the gateway of this MAC."""
        row = rules.existing(
            await self._owner.fetchrow(
                "select g.id, t.name from caudal.gateway g join caudal.tenant t on t.id = g.tenant_id"
                " where g.mac = $1",
                rules.mac(mac),
            ),
            "gateway",
        )
        async with db.tenant_transaction(self._app, row["name"]) as connection:
            return await certificates.generate(connection, self._sealer, row["id"], by=BY)

    async def revoke(self, number: int, reason: str) -> Certificate:
        """Revoke a certificate, with its list."""
        async with self._owner.acquire() as connection, connection.transaction():
            return await certificates.revoke(connection, self._sealer, self._settings, number, reason, by=BY)

    async def invite(self) -> int:
        """Ask gateways to renew, as many as may today."""
        async with self._owner.acquire() as connection:
            return await renewal.invite(connection, self._settings)

    async def mqtt_user(
        self, name: str, role: Literal["backend", "dashboard", "administrator"], tenant: str | None
    ) -> str:
        """A new password for a backend, dashboard or administrator."""
        async with self._owner.acquire() as connection, connection.transaction():
            return await credentials.add_user(connection, name, role, tenant)


def _sealer(environ: Mapping[str, str], data: Path | None) -> Sealer:
    people = load(PeopleSettings, environ)
    named = people.secret_key or people.secret_file
    directory = data or Path("data")
    if data is None and (named or "DATABASE_URL" in environ):
        return sealer_of(people)
    kept = secrets_of(directory)
    return sealer_of(people) if kept is None else Sealer(kept.master_key)


@asynccontextmanager
async def operator(environ: Mapping[str, str], data: Path | None = None) -> AsyncIterator[Operator]:
    """An operator on the installation that is up on `data`, or that the environment names."""
    url = Installation(data, environ).database_url
    sealer = _sealer(environ, data)
    owner = await db.open_pool(url, minimum=1, maximum=1, name="caudal pki")
    try:
        app = await db.open_pool(url, minimum=0, maximum=1, role=db.APP_ROLE, name="caudal pki")
        try:
            yield Operator(owner, app, sealer, load(PkiSettings, environ))
        finally:
            await app.close()
    finally:
        await owner.close()
