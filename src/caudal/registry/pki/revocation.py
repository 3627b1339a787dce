"""The revocation list: written at each revocation, and again before it expires; whole or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from caudal.core import logs
from caudal.core.errors import InvalidInput
from caudal.core.seal import Sealer

from .authority import Authority, NoAuthority, load

log = logs.get("pki")

Reason: TypeAlias = Literal[
    "unspecified", "key_compromise", "ca_compromise", "affiliation_changed", "superseded",
    "cessation_of_operation", "certificate_hold", "privilege_withdrawn", "aa_compromise",
]  # fmt: skip
"""The reasons of RFC 5280, 5.3.1. `remove_from_crl` belongs to delta lists, which we do not write."""

_FLAGS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key_compromise": x509.ReasonFlags.key_compromise,
    "ca_compromise": x509.ReasonFlags.ca_compromise,
    "affiliation_changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "certificate_hold": x509.ReasonFlags.certificate_hold,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
    "aa_compromise": x509.ReasonFlags.aa_compromise,
}


def reason(value: str) -> Reason:
    """One of the reasons, or InvalidInput."""
    if value not in get_args(Reason):
        raise InvalidInput(f"reason: use one of {', '.join(get_args(Reason))}.")
    return value  # type: ignore[return-value]


async def write(connection: Any, authority: Authority, hours: int) -> int:
    """A new list in the caller's transaction: whoever sees the revocation sees the list. Returns its number.

    One at a time, in order of their numbers: the lock is held until the transaction ends.
    """
    await connection.execute("select pg_advisory_xact_lock(hashtext('caudal.revocation_list'))")
    rows = await connection.fetch("select * from caudal.revoked() order by revoked_at, serial")
    number = await connection.fetchval("select coalesce(max(number), 0) + 1 from caudal.revocation_list")
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(hours=hours))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    for row in rows:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(row["serial"], 16))
            .revocation_date(row["revoked_at"])
        )
        # RFC 5280 wants `unspecified` to be left out.
        if row["reason"] not in (None, "unspecified"):
            entry = entry.add_extension(x509.CRLReason(_FLAGS[row["reason"]]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    der = builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    await connection.execute(
        "insert into caudal.revocation_list(number, der, this_update, next_update) values ($1, $2, $3, $4)",
        number, der, now, now + timedelta(hours=hours),
    )  # fmt: skip
    await connection.execute("delete from caudal.revocation_list where number <= $1", number - 10)
    return int(number)


async def current(connection: Any) -> bytes:
    """The newest list, DER. Raises NoAuthority when none was written."""
    found = await connection.fetchval("select der from caudal.revocation_list order by number desc limit 1")
    if found is None:
        raise NoAuthority("There is no revocation list yet. Make an authority: caudal pki init.")
    return bytes(found)


async def refresh(pool: asyncpg.Pool[Any], sealer: Sealer, hours: int) -> bool:
    """Write a new list when the newest has lived half its life; True when it did."""
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval("select exists (select from caudal.authority)"):
            return False
        fresh = await connection.fetchval(
            "select next_update - now() > make_interval(hours => $1) / 2 from caudal.revocation_list"
            " order by number desc limit 1",
            hours,
        )
        if fresh:
            return False
        await write(connection, await load(connection, sealer), hours)
        return True


async def keep_fresh(
    pool: asyncpg.Pool[Any], sealer: Sealer, hours: int, *, every_seconds: float = 60.0
) -> None:
    """Keep the list from expiring; a task for the life of the process. Many may run it."""
    while True:
        try:
            if await refresh(pool, sealer, hours):
                log.info("a new revocation list was written")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("the revocation list could not be renewed; trying again", error=repr(error))
        await asyncio.sleep(every_seconds)
