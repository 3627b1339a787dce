"""New passwords for devices and gateways: shown on one page, once."""

from __future__ import annotations

from litestar import Response, post
from litestar.params import FromPath

from caudal.registry import audit, credentials
from caudal.registry.access import AccessSettings
from caudal.registry.permissions import Action
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"access_settings"})
GUARDS = [requires(Action.CREDENTIALS_WRITE)]


async def _issue(
    thing: credentials.Thing,
    number: int,
    view: View,
    door: Database,
    principal: Caller,
    settings: AccessSettings,
) -> Response[str]:
    async with door.write() as connection:
        made = await credentials.issue(connection, thing, number, settings, by=principal.actor)
        await audit.record(connection, principal, "credential.issued", f"{thing}:{number}")
    return view.page("issued.html", issued=made)


@post("/devices/{device_id:int}/issue", guards=GUARDS, status_code=200)
async def issue_device(
    device_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    access_settings: Given[AccessSettings],
) -> Response[str]:
    """A new password for a device."""
    return await _issue("device", device_id, view, door, principal, access_settings)


@post("/gateways/{gateway_id:int}/issue", guards=GUARDS, status_code=200)
async def issue_gateway(
    gateway_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    access_settings: Given[AccessSettings],
) -> Response[str]:
    """A new password for a gateway."""
    return await _issue("gateway", gateway_id, view, door, principal, access_settings)


ROUTES = [issue_device, issue_gateway]
