"""Gateways: boxes that speak for others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.registry import audit, credentials, devices, gateways, presence
from caudal.registry.permissions import Action
from caudal.registry.pki import certificates, revocation
from caudal.web.console import forms
from caudal.web.console.devices import AVAILABILITY_DAYS, PAGE, READ, WRITE, titles
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

STATES = ("online", "offline", "never_connected")
FIELDS = (
    "code", "name", "description", "site_id", "latitude", "longitude", "capacity", "heartbeat_seconds",
    "firmware", "hardware", "serial", "model",
)  # fmt: skip


@get("/gateways", guards=READ)
async def gateway_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Gateways by search, site and state."""
    given = request.query_params
    state = given.get("state") if given.get("state") in STATES else None
    async with door.read() as connection:
        found = await gateways.find(
            connection, search=given.get("search"), site_id=number(given, "site"), status=state,
            after=number(given, "after"), limit=PAGE,
        )  # fmt: skip
        sites = await titles(connection, "site")
    return view.page(
        "gateways.html", section="gateways", found=found, sites=sites, site_names=dict(sites), states=STATES,
        state=state, search=given.get("search", ""), site_id=number(given, "site"),
        searched=any(given.get(name) for name in ("search", "site", "state")),
    )  # fmt: skip


@get("/gateways/{gateway_id:int}", guards=READ)
async def gateway_page(gateway_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """One gateway and the devices behind it."""
    now = datetime.now(UTC)
    async with door.read() as connection:
        gateway = await gateways.get(connection, gateway_id)
        behind = (await devices.find(connection, gateway_id=gateway_id, limit=200)).items
        available = await presence.availability(
            connection, "gateway", gateway_id, now - timedelta(days=AVAILABILITY_DAYS), now
        )
        secrets = await credentials.find(connection, "gateway", gateway_id)
        issued = (
            (await certificates.find(connection, gateway_id=gateway_id, limit=50)).items
            if view.may(Action.CERTIFICATES_READ)
            else []
        )
        sites = await titles(connection, "site")
    return view.page(
        "gateway.html", section="gateways", gateway=gateway, behind=behind, available=available,
        availability_days=AVAILABILITY_DAYS, secrets=secrets, sites=sites,
        certificates=issued[::-1], reasons=get_args(revocation.Reason),
    )  # fmt: skip


@post("/gateways", guards=WRITE, status_code=200)
async def make_gateway(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """A new gateway."""
    form = forms.texts(await request.form())
    given = forms.patch(
        gateways.GatewayIn, {name: value for name, value in form.items() if value.strip()}, ("mac", *FIELDS)
    )
    async with door.write() as connection:
        made = await gateways.create(connection, given)
        await audit.record(connection, principal, "gateway.created", f"gateway:{made.id}", mac=made.mac)
    return view.go(f"/console/gateways/{made.id}", done="saved")


@post("/gateways/{gateway_id:int}", guards=WRITE, status_code=200)
async def change_gateway(
    request: Request[Any, Any, Any],
    gateway_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Rename, move, edit."""
    given = forms.patch(gateways.GatewayPatch, forms.texts(await request.form()), FIELDS)
    async with door.write() as connection:
        await gateways.change(connection, gateway_id, given)
        await audit.record(connection, principal, "gateway.changed", f"gateway:{gateway_id}")
    return view.go(f"/console/gateways/{gateway_id}", done="saved")


@post("/gateways/{gateway_id:int}/revoke", guards=[requires(Action.CREDENTIALS_WRITE)], status_code=200)
async def revoke(
    gateway_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """End all passwords of the gateway."""
    async with door.write() as connection:
        count = await credentials.revoke(connection, "gateway", gateway_id)
        await audit.record(connection, principal, "credential.revoked", f"gateway:{gateway_id}", count=count)
    return view.go(f"/console/gateways/{gateway_id}", done="revoked")


ROUTES = [gateway_list, gateway_page, make_gateway, change_gateway, revoke]
