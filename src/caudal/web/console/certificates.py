"""Certificates: gateways that ask for one, what new gateways ask with, and what is in force."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from litestar import Request, Response, get, post
from litestar.di import Provide
from litestar.params import FromPath

from caudal.core.seal import Sealer
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.registry.pki import authority, bootstrap, certificates, registrations, revocation
from caudal.registry.pki.settings import PkiSettings
from caudal.registry.principal import Principal
from caudal.web.console import forms
from caudal.web.console.devices import PAGE, titles
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.door import Door
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"pki_settings", "sealer"})
READ = [requires(Action.CERTIFICATES_READ)]
WRITE = [requires(Action.CERTIFICATES_WRITE)]
REASONS: tuple[str, ...] = get_args(revocation.Reason)
STATES = ("valid", "revoked")


class Desk(NamedTuple):
    """Who decides about certificates, what their form says, and what it takes to sign and to revoke."""

    form: dict[str, str]
    door: Door
    principal: Principal
    sealer: Sealer
    settings: PkiSettings


async def _desk(
    request: Request[Any, Any, Any],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Desk:
    return Desk(forms.texts(await request.form()), door, principal, sealer, pki_settings)


DEED: dict[str, Any] = {"guards": WRITE, "status_code": 200, "dependencies": {"desk": Provide(_desk)}}


@get("/certificates", guards=READ)
async def certificate_page(
    request: Request[Any, Any, Any], view: Given[View], door: Database
) -> Response[str]:
    """Who waits, bootstrap certificates, and the certificates of the account's gateways."""
    given = request.query_params
    state = given.get("state") if given.get("state") in STATES else None
    async with door.read() as connection:
        try:
            await authority.certificate_pem(connection)
            there = True
        except authority.NoAuthority:
            there = False
        waiting = (await registrations.find(connection, status="pending", limit=100)).items
        batches = await bootstrap.find(connection)
        found = await certificates.find(
            connection, search=given.get("search"), after=number(given, "after"), limit=PAGE,
            revoked={"valid": False, "revoked": True}.get(state or ""),
        )  # fmt: skip
        gateways = dict(await titles(connection, "gateway"))
        sites = await titles(connection, "site")
    return view.page(
        "pki.html", section="certificates", there=there, waiting=waiting, batches=batches, found=found,
        gateways=gateways, sites=sites, reasons=REASONS, states=STATES, state=state,
        search=given.get("search", ""), searched=any(given.get(name) for name in ("search", "state")),
    )  # fmt: skip


@post("/certificates/registrations/{registration_id:int}/approve", **DEED)
async def approve(registration_id: FromPath[int], view: Given[View], desk: Given[Desk]) -> Response[str]:
    """Take the gateway in and sign its certificate, which it fetches by itself."""
    given = forms.patch(
        registrations.Approval, {name: text for name, text in desk.form.items() if text.strip()},
        ("code", "name", "site_id", "capacity"),
    )  # fmt: skip
    async with desk.door.write() as connection:
        made = await registrations.approve(
            connection, desk.sealer, desk.settings, registration_id, given, by=desk.principal.actor
        )
        await audit.record(
            connection, desk.principal, "registration.approved", f"registration:{registration_id}",
            mac=made.registration.mac, serial=made.certificate.serial,
        )  # fmt: skip
    return view.go(f"/console/gateways/{made.gateway.id}", done="approved")


@post("/certificates/registrations/{registration_id:int}/reject", **DEED)
async def reject(registration_id: FromPath[int], view: Given[View], desk: Given[Desk]) -> Response[str]:
    """Refuse the gateway."""
    reason, who = desk.form.get("reason", ""), desk.principal
    async with desk.door.write() as connection:
        made = await registrations.reject(connection, registration_id, reason, by=who.actor)
        await audit.record(
            connection, who, "registration.rejected", f"registration:{registration_id}", mac=made.mac
        )
    return view.go("/console/certificates", done="refused")


@post("/certificates/bootstrap", **DEED)
async def make_bootstrap(view: Given[View], desk: Given[Desk]) -> Response[str]:
    """A bootstrap certificate for a batch of new gateways; its key is in this answer alone."""
    label, who = desk.form.get("label", ""), desk.principal
    async with desk.door.write() as connection:
        made = await bootstrap.create(
            connection, desk.sealer, desk.settings, label, tenant=who.tenant_id, by=who.actor
        )
        await audit.record(
            connection, who, "bootstrap.created", f"bootstrap:{made.bootstrap.id}", label=label
        )
    return view.page("made_certificate.html", made=made, back="/console/certificates")


@post("/certificates/bootstrap/{bootstrap_id:int}/revoke", **DEED)
async def revoke_bootstrap(
    bootstrap_id: FromPath[int], view: Given[View], desk: Given[Desk]
) -> Response[str]:
    """End one: nobody registers with it any more."""
    reason = desk.form.get("reason") or "unspecified"
    async with desk.door.write() as connection:
        await bootstrap.revoke(connection, desk.sealer, desk.settings, bootstrap_id, reason)
        await audit.record(connection, desk.principal, "bootstrap.revoked", f"bootstrap:{bootstrap_id}")
    return view.go("/console/certificates", done="certificate_revoked")


@post("/certificates/{certificate_id:int}/revoke", **DEED)
async def revoke(certificate_id: FromPath[int], view: Given[View], desk: Given[Desk]) -> Response[str]:
    """Revoke one, with its reason."""
    reason, who = desk.form.get("reason", ""), desk.principal
    async with desk.door.write() as connection:
        made = await certificates.revoke(
            connection, desk.sealer, desk.settings, certificate_id, reason, by=who.actor
        )
        await audit.record(
            connection, who, "certificate.revoked", f"certificate:{certificate_id}", reason=reason
        )
    return view.go(f"/console/gateways/{made.gateway_id}", done="certificate_revoked")


@post("/gateways/{gateway_id:int}/certificate", **DEED)
async def generate(gateway_id: FromPath[int], view: Given[View], desk: Given[Desk]) -> Response[str]:
    """A key and a certificate for a gateway that cannot make its own key; in this answer alone."""
    async with desk.door.write() as connection:
        made = await certificates.generate(connection, desk.sealer, gateway_id, by=desk.principal.actor)
        await audit.record(
            connection, desk.principal, "certificate.generated", f"gateway:{gateway_id}",
            serial=made.certificate.serial,
        )  # fmt: skip
    return view.page("made_certificate.html", made=made, back=f"/console/gateways/{gateway_id}")


ROUTES = [
    certificate_page, approve, reject, make_bootstrap, revoke_bootstrap, revoke, generate,
]  # fmt: skip
