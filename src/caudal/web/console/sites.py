"""Sites: places with a time zone and a position, where gateways and devices stand."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.registry import audit, sites
from caudal.web.console import forms
from caudal.web.console.devices import PAGE, READ, WRITE
from caudal.web.console.filters import number
from caudal.web.console.view import View
from caudal.web.inject import Caller, Database, Given

FIELDS = ("name", "display_name", "time_zone", "latitude", "longitude")
# Offered to choose from; the rest of the database is taken, too.
ZONES = sorted(
    zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix"))
)


@get("/sites", guards=READ)
async def site_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Sites by search."""
    given = request.query_params
    async with door.read() as connection:
        found = await sites.find(
            connection, search=given.get("search"), after=number(given, "after"), limit=PAGE
        )
    return view.page(
        "sites.html", section="sites", found=found, search=given.get("search", ""), zones=ZONES,
    )  # fmt: skip


@get("/sites/{site_id:int}", guards=READ)
async def site_page(site_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """One site."""
    async with door.read() as connection:
        site = await sites.get(connection, site_id)
    return view.page("site.html", section="sites", site=site, zones=ZONES)


@post("/sites", guards=WRITE, status_code=200)
async def make_site(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """A new site."""
    form = forms.texts(await request.form())
    given = forms.patch(sites.SiteIn, {name: value for name, value in form.items() if value.strip()}, FIELDS)
    async with door.write() as connection:
        made = await sites.create(connection, given)
        await audit.record(connection, principal, "site.created", f"site:{made.id}", name=made.name)
    return view.go(f"/console/sites/{made.id}", done="saved")


@post("/sites/{site_id:int}", guards=WRITE, status_code=200)
async def change_site(
    request: Request[Any, Any, Any],
    site_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Rename, move, edit."""
    given = forms.patch(sites.SitePatch, forms.texts(await request.form()), FIELDS)
    async with door.write() as connection:
        await sites.change(connection, site_id, given)
        await audit.record(connection, principal, "site.changed", f"site:{site_id}")
    return view.go(f"/console/sites/{site_id}", done="saved")


@post("/sites/{site_id:int}/delete", guards=WRITE, status_code=200)
async def delete_site(
    site_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Take away a site where nothing stands."""
    async with door.write() as connection:
        await sites.delete(connection, site_id)
        await audit.record(connection, principal, "site.deleted", f"site:{site_id}")
    return view.go("/console/sites", done="deleted")


ROUTES = [site_list, site_page, make_site, change_site, delete_site]
