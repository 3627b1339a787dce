"""Renewal over the air: a gateway proves by its present key that it may have a certificate for a new one.

The gateway is asked to (command `renew_certificate`), makes a new key, and sends its signing request with a
signature of the request made by the present key. The old certificate ends in the transaction that signs the
new one; when the answer is lost, the same request gets the same answer.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from caudal.core.db import tenant_transaction
from caudal.core.errors import Conflict, Forbidden, InvalidInput, RateLimited
from caudal.core.seal import Sealer
from caudal.registry import rules

from . import authority as ca
from . import certificates, revocation
from .settings import PkiSettings

COMMAND = "renew_certificate"


class RenewalIn(msgspec.Struct):
    """What a gateway sends. `signature`: base64, over the DER of the signing request, by its present key
    (ECDSA or RSA PKCS 1 v1.5 with SHA-256, or Ed25519)."""

    mac: str
    csr_pem: str
    signature: str


class Renewed(msgspec.Struct):
    """The new certificate, and the authority's."""

    code: str
    certificate_pem: str
    authority_pem: str


def _signed_by(pem: str, signature: bytes, content: bytes) -> bool:
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, content)
        else:
            return False
    except InvalidSignature:
        return False
    return True


async def renew(pool: asyncpg.Pool[Any], sealer: Sealer, settings: PkiSettings, given: RenewalIn) -> Renewed:
    """Renew a gateway's certificate. Raises InvalidInput, Forbidden (no such key), Conflict (too early),
    RateLimited (enough for today)."""
    mac = rules.mac(given.mac)
    request = ca.read_request(given.csr_pem)
    try:
        signature = base64.b64decode(given.signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("signature: give base64.") from error
    content = request.public_bytes(serialization.Encoding.DER)
    digest = certificates.request_digest(mac, ca.public_der(request))
    rows = await pool.fetch("select * from caudal.provision_holder($1)", mac)
    signers = [row for row in rows if _signed_by(row["pem"], signature, content)]
    # Whether there is such a gateway is nobody's business who has no key of it.
    if not signers or rows[0]["revoked_at"] is not None:
        raise Forbidden("The request is not signed by a key whose certificate is in force.")
    newest = rows[0]
    async with pool.acquire() as connection:
        authority_pem = await ca.certificate_pem(connection)
    if newest["csr_digest"] == digest:
        return Renewed("already_renewed", newest["pem"], authority_pem)
    if signers[0]["id"] != newest["id"]:
        raise Forbidden("The request is not signed by a key whose certificate is in force.")
    from_day = newest["not_after"] - timedelta(days=settings.pki_renew_days)
    if datetime.now(UTC) < from_day:
        raise Conflict(f"The certificate is renewed from {from_day.date().isoformat()} on.")
    async with tenant_transaction(pool, newest["tenant"]) as connection:
        if await connection.fetchval("select caudal.renewals_today()") >= settings.pki_renewals_a_day:
            raise RateLimited("Enough certificates were renewed today. Ask tomorrow.", retry_after=3600)
        authority = await ca.load(connection, sealer)
        revoked = await connection.fetchval(
            "update caudal.certificate set revoked_at = now(), reason = 'superseded'"
            " where id = $1 and revoked_at is null returning id",
            newest["id"],
        )
        if revoked is None:
            raise Conflict("The certificate was renewed or revoked meanwhile. Ask again.")
        gateway = await connection.fetchrow(
            "select id, mac, tenant_id from caudal.gateway where id = $1", newest["gateway_id"]
        )
        signed = ca.sign_gateway(authority, request.public_key(), mac, settings.pki_device_days)
        await certificates.record(
            connection, gateway, signed, "renewed", by=f"gateway:{mac}", csr_digest=digest
        )
        await revocation.write(connection, authority, settings.pki_crl_hours)
        # It was asked to: this is its answer.
        await connection.execute(
            "update caudal.command set status = 'acknowledged', settled_by_device = true, settled_at = now(),"
            " next_at = null, error = null, sent_at = coalesce(sent_at, now())"
            " where gateway_id = $1 and name = $2 and status in ('pending', 'sent')",
            newest["gateway_id"], COMMAND,
        )  # fmt: skip
    return Renewed("renewed", signed.pem, authority.pem)


_INVITE = """
insert into caudal.command(tenant_id, gateway_id, cmd_id, name, params, max_attempts, expires_at, created_by)
select c.tenant_id, c.gateway_id, replace(gen_random_uuid()::text, '-', ''), $1,
  jsonb_build_object('not_after', to_char(c.not_after at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
  1, now() + interval '1 day', 'caudal'
from caudal.certificate c
where c.revoked_at is null and c.not_after > now() and c.not_after <= now() + make_interval(days => $2)
  and not exists (select from caudal.command k where k.gateway_id = c.gateway_id and k.name = $1
                  and k.created_at > now() - interval '1 day')
order by c.not_after
limit greatest(0, $3 - (select count(*) from caudal.command k
                        where k.name = $1 and k.created_at >= date_trunc('day', now(), 'UTC')))
returning id"""


async def invite(connection: Any, settings: PkiSettings) -> int:
    """Ask the gateways whose certificates end soonest to renew them, as many a day as may; returns how many.

    For a connection that sees all tenants. One at a time: two processes together do not invite more.
    """
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(hashtext('caudal.renewals'))")
        rows = await connection.fetch(_INVITE, COMMAND, settings.pki_renew_days, settings.pki_renewals_a_day)
    return len(rows)


def sign_request(key: Any, csr_pem: str) -> str:
    """What a gateway puts into `signature`: for our own tools and tests."""
    content = x509.load_pem_x509_csr(csr_pem.encode()).public_bytes(serialization.Encoding.DER)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        made = key.sign(content, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        made = key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    else:
        made = key.sign(content)
    return base64.b64encode(made).decode()
