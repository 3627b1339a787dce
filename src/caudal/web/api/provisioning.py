"""Certificates: registration by gateways, approval by people, and the files that brokers need."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from litestar import Request, Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromQuery, JSONBody, QueryParameter

from caudal.core.errors import CaudalError, Forbidden
from caudal.core.seal import Sealer
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.registry.pki import authority as ca
from caudal.registry.pki import bootstrap, certificates, registrations, renewal, revocation
from caudal.registry.pki.bootstrap import Bootstrap, NewBootstrap
from caudal.registry.pki.certificates import Certificate, Generated
from caudal.registry.pki.registrations import Approval, Approved, Registration, RegistrationIn, State
from caudal.registry.pki.renewal import RenewalIn, Renewed
from caudal.registry.pki.settings import PkiSettings
from caudal.web import pages
from caudal.web.api._registry import Id, Ref, Search, shown
from caudal.web.frame import TrustedProxies
from caudal.web.guards import public, requires
from caudal.web.inject import Caller, Database, Given
from caudal.web.pages import Cursor, Limit, Page
from caudal.web.problems import on_caudal_error

NEEDS = frozenset({"pki_settings", "sealer", "pool"})
READ = [requires(Action.CERTIFICATES_READ)]
WRITE = [requires(Action.CERTIFICATES_WRITE)]
GATEWAYS = [
    public("a new gateway has no account; its bootstrap certificate and a person's approval stand for one")
]
FILES = [public("certificates and revocation lists are for everybody who must check them")]


class RegistrationAnswer(msgspec.Struct):
    """What a gateway hears of its registration, as firmware in the field knows it."""

    status: Literal["ok", "error"]
    code: Literal["registered", "already_registered", "invalid_request", "rate_limited"]
    registro_id: int | None = None
    error: str | None = None


class Ask(msgspec.Struct):
    """A gateway asks how its registration stands."""

    mac: str
    bootstrap_fingerprint: str


class StateAnswer(msgspec.Struct):
    """How a registration stands; with both certificates once it is approved."""

    status: Literal["ok"]
    code: Literal["pending", "rejected", "issued", "revoked", "unknown"]
    certificate_pem: str | None = None
    authority_pem: str | None = None
    reason: str | None = None


class WithReason(msgspec.Struct, forbid_unknown_fields=True):
    """Why."""

    reason: str = ""


class Revocation(msgspec.Struct, forbid_unknown_fields=True):
    """Why, as RFC 5280 has it."""

    reason: revocation.Reason = "unspecified"


class NewLabel(msgspec.Struct, forbid_unknown_fields=True):
    """What the batch of gateways is called."""

    label: str


class BootstrapList(msgspec.Struct):
    """Bootstrap certificates, newest first."""

    items: list[Bootstrap]


def _refused(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Errors in the words of the contract."""
    if isinstance(error, CaudalError) and error.status == 429:
        answer = RegistrationAnswer("error", "rate_limited", error=error.sentence)
        return Response(answer, status_code=429, headers={"Retry-After": "3600"})
    if isinstance(error, CaudalError) and error.status >= 500:
        return on_caudal_error(request, error)
    sentence = error.sentence if isinstance(error, CaudalError) else "The request is not valid."
    return Response(RegistrationAnswer("error", "invalid_request", error=sentence), status_code=400)


def _certified(request: Request[Any, Any, Any], settings: PkiSettings, claimed: str) -> None:
    """Where a proxy checks client certificates: that the one it saw is the one claimed. Raises Forbidden."""
    name = settings.pki_client_cert_header
    if not name:
        return
    client = request.scope.get("client")
    peer = str(client[0]) if client else ""
    trusted = TrustedProxies(request.app.state.web.trusted_proxies).trusts(peer)
    seen = request.headers.get(name, "") if trusted else ""
    if not seen or bootstrap.fingerprint(seen) != bootstrap.fingerprint(claimed):
        raise Forbidden("bootstrap_fingerprint: it is not the certificate that the connection was made with.")


@post(
    ["/tds_new/api/provision/register", "/api/provision/register"],
    guards=GATEWAYS,
    status_code=200,
    exception_handlers={CaudalError: _refused, 400: _refused},
    responses={
        400: ResponseSpec(RegistrationAnswer, description="`invalid_request`"),
        429: ResponseSpec(RegistrationAnswer, description="`rate_limited`: ten an hour from an address"),
    },
)
async def register(
    request: Request[Any, Any, Any],
    data: JSONBody[RegistrationIn],
    pool: Given[asyncpg.Pool],
    pki_settings: Given[PkiSettings],
) -> RegistrationAnswer:
    """Register a new gateway by its signing request. Idempotent by MAC; ten an hour from an address."""
    address = request.scope["state"].get("address", "")
    await registrations.admit(pool, address, pki_settings.pki_registrations_an_hour)
    _certified(request, pki_settings, data.bootstrap_fingerprint)
    code, number = await registrations.register(pool, data, address)
    return RegistrationAnswer("ok", code, number)  # type: ignore[arg-type]


@post(["/tds_new/api/provision/certificate", "/api/provision/certificate"], guards=GATEWAYS, status_code=200)
async def fetch_certificate(
    request: Request[Any, Any, Any],
    data: JSONBody[Ask],
    pool: Given[asyncpg.Pool],
    pki_settings: Given[PkiSettings],
) -> StateAnswer:
    """How a gateway's registration stands, and its certificate once a person has approved it."""
    _certified(request, pki_settings, data.bootstrap_fingerprint)
    found: State = await registrations.state(pool, data.mac, data.bootstrap_fingerprint)
    pem = None
    if found.certificate_pem is not None:
        async with pool.acquire() as connection:
            pem = await ca.certificate_pem(connection)
    return StateAnswer("ok", found.code, found.certificate_pem, pem, found.reason)


@post(["/tds_new/api/provision/renew", "/api/provision/renew"], guards=GATEWAYS, status_code=200,
      opt={"problems": (403,)})  # fmt: skip
async def renew(
    data: JSONBody[RenewalIn],
    pool: Given[asyncpg.Pool],
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Renewed:
    """Renew a certificate: the request is signed by the key that it replaces."""
    return await renewal.renew(pool, sealer, pki_settings, data)


# -- people


@get("/api/registrations", guards=READ)
async def list_registrations(
    door: Database,
    status: FromQuery[Literal["pending", "approved", "rejected", "closed"] | None] = None,
    search: Search = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Registration]:
    """Gateways that asked for a certificate."""
    async with door.read() as connection:
        after = pages.decode(cursor, int)
        return shown(
            await registrations.find(connection, status=status, search=search, after=after, limit=limit)
        )


@get("/api/registrations/{registration_id:int}", guards=READ)
async def get_registration(registration_id: Id, door: Database) -> Registration:
    """One registration."""
    async with door.read() as connection:
        return await registrations.get(connection, registration_id)


@post("/api/registrations/{registration_id:int}/approve", guards=WRITE, status_code=200)
async def approve(
    registration_id: Id,
    data: JSONBody[Approval],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Approved:
    """Take the gateway in under a code and a name, and sign its certificate."""
    async with door.write() as connection:
        made = await registrations.approve(
            connection, sealer, pki_settings, registration_id, data, by=principal.actor
        )
        await audit.record(
            connection, principal, "registration.approved", f"registration:{registration_id}",
            mac=made.registration.mac, serial=made.certificate.serial,
        )  # fmt: skip
    return made


@post("/api/registrations/{registration_id:int}/reject", guards=WRITE, status_code=200)
async def reject(
    registration_id: Id, data: JSONBody[WithReason], door: Database, principal: Caller
) -> Registration:
    """Refuse the gateway."""
    async with door.write() as connection:
        made = await registrations.reject(connection, registration_id, data.reason, by=principal.actor)
        await audit.record(
            connection, principal, "registration.rejected", f"registration:{registration_id}", mac=made.mac
        )
    return made


@delete("/api/registrations/{registration_id:int}", guards=WRITE, status_code=204)
async def forget(registration_id: Id, door: Database, principal: Caller) -> None:
    """Forget a registration that came to nothing; the gateway may ask again."""
    async with door.write() as connection:
        await registrations.forget(connection, registration_id)
        await audit.record(connection, principal, "registration.deleted", f"registration:{registration_id}")


@get("/api/certificates", guards=READ)
async def list_certificates(
    door: Database,
    gateway_id: Ref = None,
    search: Search = None,
    revoked: FromQuery[bool | None] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Certificate]:
    """Certificates of the tenant's gateways."""
    async with door.read() as connection:
        after = pages.decode(cursor, int)
        return shown(
            await certificates.find(
                connection, gateway_id=gateway_id, search=search, revoked=revoked, after=after, limit=limit
            )
        )


@get("/api/certificates/{certificate_id:int}", guards=READ)
async def get_certificate(certificate_id: Id, door: Database) -> Certificate:
    """One certificate."""
    async with door.read() as connection:
        return await certificates.get(connection, certificate_id)


@post("/api/certificates/{certificate_id:int}/revoke", guards=WRITE, status_code=200)
async def revoke_certificate(
    certificate_id: Id,
    data: JSONBody[Revocation],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Certificate:
    """Revoke a certificate for good: it is in the list at once, and its gateway is out within seconds."""
    async with door.write() as connection:
        made = await certificates.revoke(
            connection, sealer, pki_settings, certificate_id, data.reason, by=principal.actor
        )
        await audit.record(
            connection, principal, "certificate.revoked", f"certificate:{certificate_id}", reason=data.reason
        )
    return made


@post("/api/gateways/{gateway_id:int}/certificate", guards=WRITE, status_code=201)
async def generate_certificate(
    gateway_id: Id, door: Database, principal: Caller, sealer: Given[Sealer]
) -> Generated:
    """A key and a certificate for a gateway that cannot make its own key: shown here and never again."""
    async with door.write() as connection:
        made = await certificates.generate(connection, sealer, gateway_id, by=principal.actor)
        await audit.record(
            connection, principal, "certificate.generated", f"gateway:{gateway_id}",
            serial=made.certificate.serial,
        )  # fmt: skip
    return made


@get("/api/bootstrap-certificates", guards=READ)
async def list_bootstrap(door: Database) -> BootstrapList:
    """The tenant's bootstrap certificates."""
    async with door.read() as connection:
        return BootstrapList(await bootstrap.find(connection))


@post("/api/bootstrap-certificates", guards=WRITE, status_code=201)
async def create_bootstrap(
    data: JSONBody[NewLabel],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> NewBootstrap:
    """A bootstrap certificate for a batch of new gateways; its key is shown here and never again."""
    async with door.write() as connection:
        made = await bootstrap.create(
            connection, sealer, pki_settings, data.label, tenant=principal.tenant_id, by=principal.actor
        )
        await audit.record(
            connection, principal, "bootstrap.created", f"bootstrap:{made.bootstrap.id}", label=data.label
        )
    return made


@post("/api/bootstrap-certificates/{bootstrap_id:int}/revoke", guards=WRITE, status_code=200)
async def revoke_bootstrap(
    bootstrap_id: Id,
    data: JSONBody[Revocation],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Bootstrap:
    """End a bootstrap certificate: nobody registers with it any more."""
    async with door.write() as connection:
        made = await bootstrap.revoke(connection, sealer, pki_settings, bootstrap_id, data.reason)
        await audit.record(connection, principal, "bootstrap.revoked", f"bootstrap:{bootstrap_id}")
    return made


# -- files for brokers


Pem = Annotated[bool, QueryParameter(description="In PEM, where the default is DER")]


@get("/api/pki/authority", guards=FILES, media_type="application/x-pem-file")
async def authority_file(pool: Given[asyncpg.Pool]) -> Response[str]:
    """The authority's certificate, PEM."""
    async with pool.acquire() as connection:
        return Response(await ca.certificate_pem(connection), media_type="application/x-pem-file")


@get("/api/pki/crl", guards=FILES, media_type="application/pkix-crl",
     opt={"media_types": ("application/x-pem-file",)})  # fmt: skip
async def revocation_file(pool: Given[asyncpg.Pool], pem: Pem = False) -> Response[bytes]:
    """The newest revocation list."""
    async with pool.acquire() as connection:
        der = await revocation.current(connection)
    if pem:
        text = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
        return Response(text, media_type="application/x-pem-file")
    return Response(der, media_type="application/pkix-crl")


ROUTES = [
    register, fetch_certificate, renew,
    list_registrations, get_registration, approve, reject, forget,
    list_certificates, get_certificate, revoke_certificate, generate_certificate,
    list_bootstrap, create_bootstrap, revoke_bootstrap,
    authority_file, revocation_file,
]  # fmt: skip
