"""Gateways' certificates: issued, listed, revoked. One unrevoked for each MAC, by a unique index."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import asyncpg
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from caudal.core.errors import Conflict
from caudal.core.seal import Sealer
from caudal.registry import rules
from caudal.registry.paging import Page, Where, page

from . import authority as ca
from . import revocation
from .settings import PkiSettings

FACTORY_DAYS = 3650


class Certificate(msgspec.Struct):
    """A certificate as it stands."""

    id: int
    gateway_id: int
    mac: str
    serial: str
    fingerprint: str
    kind: Literal["registered", "generated", "renewed"]
    not_before: str
    not_after: str
    created_at: str
    created_by: str
    revoked_at: str | None
    reason: str | None


class Generated(msgspec.Struct):
    """A certificate with its key, in the only answer that shows the key."""

    certificate: Certificate
    certificate_pem: str
    key_pem: str
    authority_pem: str


SELECT = "select c.* from caudal.certificate c"


def made(row: Any) -> Certificate:
    """A row of caudal.certificate as a Certificate."""
    revoked = row["revoked_at"]
    return Certificate(
        row["id"], row["gateway_id"], row["mac"], row["serial"], row["fingerprint"], row["kind"],
        row["not_before"].isoformat(), row["not_after"].isoformat(), row["created_at"].isoformat(),
        row["created_by"], None if revoked is None else revoked.isoformat(), row["reason"],
    )  # fmt: skip


def request_digest(mac: str, public: bytes) -> bytes:
    """Of a request's key for a MAC: the same request asked again."""
    return hashlib.sha256(mac.encode() + b"\0" + public).digest()


async def find(
    connection: Any,
    *,
    gateway_id: int | None = None,
    search: str | None = None,
    revoked: bool | None = None,
    after: int | None = None,
    limit: int = 50,
) -> Page[Certificate]:
    """A page of certificates."""
    where = Where()
    where.add("c.gateway_id = {}::bigint", gateway_id)
    where.search(("c.mac", "c.serial", "c.fingerprint"), search)
    where.add("(c.revoked_at is not null) = {}", revoked)
    return await page(connection, SELECT, where, "c.id", made, after, limit)


async def get(connection: Any, certificate: int) -> Certificate:
    """One certificate, or NotFound."""
    found = await connection.fetchrow(f"{SELECT} where c.id = $1::bigint", certificate)
    return made(rules.existing(found, "certificate"))


async def record(
    connection: Any,
    gateway: Any,
    signed: ca.Made,
    kind: Literal["registered", "generated", "renewed"],
    *,
    by: str,
    csr_digest: bytes | None = None,
) -> Certificate:
    """Keep a certificate just signed for the row `gateway` (id, mac, tenant_id). Conflict when it has one."""
    try:
        row = await connection.fetchrow(
            "insert into caudal.certificate(tenant_id, gateway_id, mac, serial, fingerprint, pem, csr_digest,"
            " not_before, not_after, kind, created_by)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning *",
            gateway["tenant_id"], gateway["id"], gateway["mac"], signed.serial, signed.fingerprint,
            signed.pem, csr_digest, signed.not_before, signed.not_after, kind, by,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("The gateway has a certificate in force; revoke it first.") from error
    return made(row)


async def generate(connection: Any, sealer: Sealer, gateway: int, *, by: str = "") -> Generated:
    """A key and a certificate for a gateway, to be burnt in at a factory: ten years, shown once, not kept.

    A gateway that can make its own key should send a signing request: then the key never travels.
    """
    row = rules.existing(
        await connection.fetchrow(
            "select id, mac, tenant_id from caudal.gateway where id = $1::bigint for update", gateway
        ),
        "gateway",
    )
    authority = await ca.load(connection, sealer)
    key = ec.generate_private_key(ec.SECP256R1())
    signed = ca.sign_gateway(authority, key.public_key(), row["mac"], FACTORY_DAYS)
    kept = await record(connection, row, signed, "generated", by=by)
    return Generated(kept, signed.pem, ca.key_pem(key), authority.pem)


async def revoke(
    connection: Any, sealer: Sealer, settings: PkiSettings, certificate: int, reason: str, *, by: str = ""
) -> Certificate:
    """Revoke a certificate for good, with the new list in the same transaction.

    What it was registered with is closed, so that the gateway may ask anew. Revoking again changes nothing.
    """
    why = revocation.reason(reason)
    row = rules.existing(
        await connection.fetchrow(f"{SELECT} where c.id = $1::bigint for update", certificate), "certificate"
    )
    if row["revoked_at"] is not None:
        return made(row)
    row = await connection.fetchrow(
        "update caudal.certificate set revoked_at = now(), reason = $2 where id = $1 returning *",
        certificate, why,
    )  # fmt: skip
    await connection.execute(
        "update caudal.registration set status = 'closed', reason = $2, decided_by = $3"
        " where mac = $1 and status = 'approved'",
        row["mac"], f"certificate revoked: {why}", by,
    )  # fmt: skip
    await revocation.write(connection, await ca.load(connection, sealer), settings.pki_crl_hours)
    return made(row)
