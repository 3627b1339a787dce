"""A gateway's certificates: revoked here for good. Registrations and authorities are the command line's."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.params import FromPath

from caudal.core.seal import Sealer
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.registry.pki import certificates
from caudal.registry.pki.settings import PkiSettings
from caudal.web.console import forms
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"pki_settings", "sealer"})


@post("/certificates/{certificate_id:int}/revoke", guards=[requires(Action.CERTIFICATES_WRITE)],
      status_code=200)  # fmt: skip
async def revoke(
    request: Request[Any, Any, Any],
    certificate_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    sealer: Given[Sealer],
    pki_settings: Given[PkiSettings],
) -> Response[str]:
    """Revoke one, with its reason."""
    reason = forms.texts(await request.form()).get("reason", "")
    async with door.write() as connection:
        made = await certificates.revoke(
            connection, sealer, pki_settings, certificate_id, reason, by=principal.actor
        )
        await audit.record(
            connection, principal, "certificate.revoked", f"certificate:{certificate_id}", reason=reason
        )
    return view.go(f"/console/gateways/{made.gateway_id}", done="certificate_revoked")


ROUTES = [revoke]
