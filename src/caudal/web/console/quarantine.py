"""Quarantine: devices that came unannounced, to be claimed or rejected."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.registry import audit, quarantine
from caudal.registry.permissions import Action
from caudal.registry.quarantine import Release
from caudal.web.console import forms
from caudal.web.console.devices import KINDS, PAGE, READ, titles
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"release"})
CLAIM = [requires(Action.DEVICES_CLAIM)]
FIELDS = ("display_name", "site_id", "profile_id", "kind")


@get("/quarantine", guards=READ)
async def waiting(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Who waits, with what."""
    given = request.query_params
    async with door.read() as connection:
        found = await quarantine.find(
            connection, search=given.get("search"), after=number(given, "after"), limit=PAGE
        )
        choices = {name: await titles(connection, name) for name in ("site", "profile")}
    return view.page(
        "quarantine.html", section="quarantine", found=found, choices=choices, kinds=KINDS,
        search=given.get("search", ""),
    )  # fmt: skip


@post("/quarantine/{device_id:int}/claim", guards=CLAIM, status_code=200)
async def claim(
    request: Request[Any, Any, Any],
    device_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
    release: Given[Release],
) -> Response[str]:
    """Make the device one of ours; what it sent goes through ingest."""
    given = forms.patch(quarantine.Claim, forms.texts(await request.form()), FIELDS)
    async with door.write() as connection:
        device = await quarantine.claim(connection, device_id, given)
        await audit.record(connection, principal, "device.claimed", f"device:{device_id}", name=device.name)
    # After the commit: ingest must find the device active. Should this be interrupted, a sweep finishes it.
    await release.release(principal.tenant, device.name)
    return view.go(f"/console/devices/{device_id}", done="claimed")


@post("/quarantine/{device_id:int}/reject", guards=CLAIM, status_code=200)
async def reject(
    device_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Refuse the device."""
    async with door.write() as connection:
        await quarantine.reject(connection, device_id)
        await audit.record(connection, principal, "device.rejected", f"device:{device_id}")
    return view.go("/console/quarantine", done="rejected")


ROUTES = [waiting, claim, reject]
