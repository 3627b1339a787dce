"""Sites of the caller's tenant."""

from __future__ import annotations

from litestar import delete, get, patch, post
from litestar.params import JSONBody

from caudal.registry import audit, sites
from caudal.registry.sites import Site, SiteIn, SitePatch
from caudal.web import pages
from caudal.web.api._registry import READ, WRITE, Id, Search, shown
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page


@get("/api/sites", guards=READ)
async def list_sites(
    door: Database, search: Search = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[Site]:
    """The tenant's sites."""
    async with door.read() as connection:
        return shown(
            await sites.find(connection, search=search, after=pages.decode(cursor, int), limit=limit)
        )


@post("/api/sites", guards=WRITE, status_code=201)
async def create_site(data: JSONBody[SiteIn], door: Database, principal: Caller) -> Site:
    """Make a site."""
    async with door.write() as connection:
        made = await sites.create(connection, data)
        await audit.record(connection, principal, "site.created", f"site:{made.id}", name=made.name)
    return made


@get("/api/sites/{site_id:int}", guards=READ)
async def get_site(site_id: Id, door: Database) -> Site:
    """One site."""
    async with door.read() as connection:
        return await sites.get(connection, site_id)


@patch("/api/sites/{site_id:int}", guards=WRITE)
async def change_site(site_id: Id, data: JSONBody[SitePatch], door: Database, principal: Caller) -> Site:
    """Change a site."""
    async with door.write() as connection:
        made = await sites.change(connection, site_id, data)
        await audit.record(connection, principal, "site.changed", f"site:{site_id}")
    return made


@delete("/api/sites/{site_id:int}", guards=WRITE, status_code=204)
async def delete_site(site_id: Id, door: Database, principal: Caller) -> None:
    """Delete a site where nothing stands."""
    async with door.write() as connection:
        await sites.delete(connection, site_id)
        await audit.record(connection, principal, "site.deleted", f"site:{site_id}")


ROUTES = [list_sites, create_site, get_site, change_site, delete_site]
