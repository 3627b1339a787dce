"""Registration: a gateway asks with a signing request, a person decides, it fetches its certificate."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, RateLimited
from caudal.core.seal import Sealer
from caudal.registry import gateways, rules
from caudal.registry.gateways import Gateway, GatewayIn
from caudal.registry.paging import Page, Where, page

from . import authority as ca
from . import bootstrap, certificates
from .certificates import Certificate
from .settings import PkiSettings


class RegistrationIn(msgspec.Struct):
    """What a gateway sends. Fields beyond these are left alone: firmware in the field may know more."""

    mac: str
    serial: str
    modelo: str
    fw_version: str
    bootstrap_fingerprint: str
    csr_pem: str


class Registration(msgspec.Struct):
    """A registration as it stands."""

    id: int
    mac: str
    serial: str
    model: str
    firmware: str
    address: str
    status: Literal["pending", "approved", "rejected", "closed"]
    reason: str | None
    certificate_id: int | None
    decided_by: str | None
    decided_at: str | None
    created_at: str


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    """Under which code and name the gateway is known. A gateway registered before with this MAC is taken."""

    code: str
    name: str = ""
    site_id: int | None = None
    capacity: int = 8


class Approved(msgspec.Struct):
    """What an approval made."""

    registration: Registration
    gateway: Gateway
    certificate: Certificate


class State(msgspec.Struct):
    """What a gateway hears of its request; with both certificates once it is approved."""

    code: Literal["pending", "rejected", "issued", "revoked", "unknown"]
    certificate_pem: str | None = None
    reason: str | None = None


SELECT = "select r.* from caudal.registration r"


def _made(row: Any) -> Registration:
    decided = row["decided_at"]
    return Registration(
        row["id"], row["mac"], row["serial"], row["model"], row["firmware"], row["address"], row["status"],
        row["reason"], row["certificate_id"], row["decided_by"],
        None if decided is None else decided.isoformat(), row["created_at"].isoformat(),
    )  # fmt: skip


def limited_by(address: str) -> str:
    """What an address is counted as: itself, or of IPv6 the /64 that one customer has whole."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


async def admit(pool: asyncpg.Pool[Any], address: str, most: int) -> None:
    """Count a try of this address. Raises RateLimited beyond `most` in an hour, over all processes."""
    if not await pool.fetchval("select caudal.provision_admit($1, $2)", limited_by(address), most):
        raise RateLimited("This address has tried too often. Wait an hour.", retry_after=3600)


async def register(pool: asyncpg.Pool[Any], given: RegistrationIn, address: str) -> tuple[str, int]:
    """Register a gateway; (`registered` or `already_registered`, the registration's number).

    Idempotent by MAC: a second request changes nothing, least of all the key. Raises InvalidInput.
    """
    mac = rules.mac(given.mac)
    serial = rules.text(given.serial, "serial", most=100, least=1)
    model = rules.text(given.modelo, "modelo", most=100)
    firmware = rules.text(given.fw_version, "fw_version", most=100)
    print_ = bootstrap.fingerprint(given.bootstrap_fingerprint)
    ca.read_request(given.csr_pem)
    for _ in range(2):
        row = await pool.fetchrow(
            "select * from caudal.provision_register($1, $2, $3, $4, $5, $6, $7)",
            mac, serial, model, firmware, print_, given.csr_pem, address,
        )  # fmt: skip
        assert row is not None
        if row["code"] == "unknown_bootstrap":
            raise InvalidInput("bootstrap_fingerprint: no such bootstrap certificate is in force.")
        if row["id"] is not None:
            return row["code"], row["id"]
        # Another request for the MAC committed between the two looks, and was closed: once more.
    raise Conflict("The registration is being decided. Ask again.")


async def state(pool: asyncpg.Pool[Any], mac: str, fingerprint: str) -> State:
    """How a gateway's request stands, for who holds the bootstrap certificate."""
    row = await pool.fetchrow(
        "select * from caudal.provision_state($1, $2)", rules.mac(mac), bootstrap.fingerprint(fingerprint)
    )
    if row is None:
        return State("unknown")
    if row["status"] == "approved":
        return State("issued", row["pem"]) if row["pem"] else State("revoked")
    return State(row["status"], reason=row["reason"])


async def find(
    connection: Any,
    *,
    status: str | None = None,
    search: str | None = None,
    after: int | None = None,
    limit: int = 50,
) -> Page[Registration]:
    """A page of registrations."""
    where = Where()
    where.add("r.status = {}", status)
    where.search(("r.mac", "r.serial", "r.model"), search)
    return await page(connection, SELECT, where, "r.id", _made, after, limit)


async def get(connection: Any, registration: int) -> Registration:
    """One registration, or NotFound."""
    found = await connection.fetchrow(f"{SELECT} where r.id = $1::bigint", registration)
    return _made(rules.existing(found, "registration"))


async def _pending(connection: Any, registration: int) -> Any:
    row = rules.existing(
        await connection.fetchrow(f"{SELECT} where r.id = $1::bigint for update", registration),
        "registration",
    )
    if row["status"] != "pending":
        raise Conflict(f"The registration is {row['status']} already.")
    return row


async def approve(
    connection: Any, sealer: Sealer, settings: PkiSettings, registration: int, given: Approval, *, by: str
) -> Approved:
    """Approve a pending registration: the gateway is one of the tenant's, and its certificate is signed.

    Raises Conflict when code or MAC are taken, or the MAC has a certificate in force.
    """
    row = await _pending(connection, registration)
    found = await connection.fetchval("select id from caudal.gateway where mac = $1", row["mac"])
    if found is None:
        made = await gateways.create(
            connection,
            GatewayIn(
                given.code, row["mac"], given.name, site_id=given.site_id, capacity=given.capacity,
                firmware=row["firmware"], serial=row["serial"], model=row["model"],
            ),
        )  # fmt: skip
    else:
        made = await gateways.get(connection, found)
        if made.code != rules.gateway_code(given.code):
            raise Conflict(f"code: this MAC is registered already, as {made.code}.")
    gateway = await connection.fetchrow(
        "select id, mac, tenant_id from caudal.gateway where id = $1", made.id
    )
    request = ca.read_request(row["csr_pem"])
    authority = await ca.load(connection, sealer)
    signed = ca.sign_gateway(authority, request.public_key(), row["mac"], settings.pki_device_days)
    certificate = await certificates.record(
        connection, gateway, signed, "registered", by=by,
        csr_digest=certificates.request_digest(row["mac"], ca.public_der(request)),
    )  # fmt: skip
    row = await connection.fetchrow(
        "update caudal.registration set status = 'approved', certificate_id = $2, decided_by = $3,"
        " decided_at = now(), tenant_id = $4 where id = $1 returning *",
        registration, certificate.id, by, gateway["tenant_id"],
    )  # fmt: skip
    return Approved(_made(row), made, certificate)


async def reject(connection: Any, registration: int, reason: str, *, by: str) -> Registration:
    """Refuse a pending registration; the gateway hears `rejected` until somebody forgets it."""
    await _pending(connection, registration)
    row = await connection.fetchrow(
        "update caudal.registration set status = 'rejected', reason = $2, decided_by = $3, decided_at = now()"
        " where id = $1 returning *",
        registration, rules.text(reason, "reason", most=500) or None, by,
    )  # fmt: skip
    return _made(row)


async def forget(connection: Any, registration: int) -> None:
    """Delete a registration that was rejected, or is still pending: the gateway may ask again."""
    status = await connection.fetchval(
        "select status from caudal.registration where id = $1::bigint for update", registration
    )
    if rules.existing(status, "registration") not in ("pending", "rejected"):
        raise Conflict("An approved registration is the record of its certificate; revoke that.")
    await connection.execute("delete from caudal.registration where id = $1", registration)
