"""Bootstrap certificates: shared by a batch of new gateways, good for registering and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from caudal.core.errors import InvalidInput
from caudal.core.seal import Sealer
from caudal.registry import rules

from . import authority as ca
from . import revocation
from .settings import PkiSettings


class Bootstrap(msgspec.Struct):
    """A bootstrap certificate as it stands."""

    id: int
    label: str
    fingerprint: str
    serial: str
    not_after: str
    created_at: str
    created_by: str
    revoked_at: str | None


class NewBootstrap(msgspec.Struct):
    """A new one with its key, in the only answer that shows the key."""

    bootstrap: Bootstrap
    certificate_pem: str
    key_pem: str
    authority_pem: str


def _made(row: Any) -> Bootstrap:
    revoked = row["revoked_at"]
    return Bootstrap(
        row["id"], row["label"], row["fingerprint"], row["serial"], row["not_after"].isoformat(),
        row["created_at"].isoformat(), row["created_by"], None if revoked is None else revoked.isoformat(),
    )  # fmt: skip


def fingerprint(value: str) -> str:
    """A SHA-256 fingerprint as we keep it: lower-case hex, whatever the spelling. Raises InvalidInput."""
    kept = value.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(kept) != 64 or any(character not in "0123456789abcdef" for character in kept):
        raise InvalidInput("bootstrap_fingerprint: give the certificate's SHA-256 in hex.")
    return kept


async def create(
    connection: Any, sealer: Sealer, settings: PkiSettings, label: str, *, tenant: int | None, by: str = ""
) -> NewBootstrap:
    """A bootstrap certificate. With `tenant` (its id) the gateways that use it await that tenant's people."""
    label = rules.text(label, "label", most=60, least=1)
    authority = await ca.load(connection, sealer)
    key = ec.generate_private_key(ec.SECP256R1())
    signed = ca.sign_bootstrap(authority, key.public_key(), label, settings.pki_bootstrap_days)
    row = await connection.fetchrow(
        "insert into caudal.bootstrap_certificate(tenant_id, label, fingerprint, serial,"
        " not_after, created_by) values ($1, $2, $3, $4, $5, $6) returning *",
        tenant, label, signed.fingerprint, signed.serial, signed.not_after, by,
    )  # fmt: skip
    return NewBootstrap(_made(row), signed.pem, ca.key_pem(key), authority.pem)


async def find(connection: Any) -> list[Bootstrap]:
    """All bootstrap certificates the connection may see, newest first."""
    rows = await connection.fetch("select * from caudal.bootstrap_certificate order by id desc limit 500")
    return [_made(row) for row in rows]


async def revoke(
    connection: Any, sealer: Sealer, settings: PkiSettings, number: int, reason: str
) -> Bootstrap:
    """End a bootstrap certificate: no gateway registers with it any more."""
    why = revocation.reason(reason)
    row = rules.existing(
        await connection.fetchrow(
            "update caudal.bootstrap_certificate set revoked_at = coalesce(revoked_at, now()),"
            " reason = coalesce(reason, $2) where id = $1::bigint returning *",
            number, why,
        ),
        "bootstrap certificate",
    )  # fmt: skip
    await revocation.write(connection, await ca.load(connection, sealer), settings.pki_crl_hours)
    return _made(row)
