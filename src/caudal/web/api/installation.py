"""All tenants, for who runs the installation; for everybody else these routes are not there (404)."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from litestar import get, post
from litestar.params import JSONBody, PathParameter

from caudal.registry import installation
from caudal.registry.installation import AnyTenant
from caudal.registry.permissions import Action
from caudal.registry.settings import PeopleSettings
from caudal.web import pages
from caudal.web.api._registry import shown
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given
from caudal.web.installation import runs_installation
from caudal.web.pages import Cursor, Limit, Page

NEEDS = frozenset({"people_settings"})
READ = [requires(Action.OPERATIONS_READ)]
SUSPEND = [requires(Action.TENANTS_SUSPEND)]
Id: TypeAlias = Annotated[int, PathParameter(ge=1, le=installation.MOST)]


class Suspension(msgspec.Struct, frozen=True):
    """Why, for the audit log."""

    reason: Annotated[str, msgspec.Meta(max_length=500, pattern="^[^\\x00-\\x1f]*$")] = ""


@get("/api/installation/tenants", guards=READ)
async def list_tenants(
    door: Database,
    principal: Caller,
    people_settings: Given[PeopleSettings],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AnyTenant]:
    """Every tenant, with what it has and may."""
    runs_installation(principal, people_settings)
    async with door.read() as connection:
        return shown(await installation.find(connection, after=pages.decode(cursor, int), limit=limit))


@get("/api/installation/tenants/{tenant_id:int}", guards=READ)
async def get_tenant(
    tenant_id: Id, door: Database, principal: Caller, people_settings: Given[PeopleSettings]
) -> AnyTenant:
    """One tenant."""
    runs_installation(principal, people_settings)
    async with door.read() as connection:
        return await installation.get(connection, tenant_id)


@post("/api/installation/tenants/{tenant_id:int}/suspend", guards=SUSPEND, status_code=200)
async def suspend(
    tenant_id: Id,
    data: JSONBody[Suspension],
    door: Database,
    principal: Caller,
    people_settings: Given[PeopleSettings],
) -> AnyTenant:
    """Shut a tenant out: people, keys, devices and readers; what it has stays, and waits for `resume`."""
    runs_installation(principal, people_settings)
    async with door.write() as connection:
        return await installation.set_status(
            connection, principal, tenant_id, "suspended", reason=data.reason
        )


@post("/api/installation/tenants/{tenant_id:int}/resume", guards=SUSPEND, status_code=200)
async def resume(
    tenant_id: Id, door: Database, principal: Caller, people_settings: Given[PeopleSettings]
) -> AnyTenant:
    """Let a suspended tenant work again."""
    runs_installation(principal, people_settings)
    async with door.write() as connection:
        return await installation.set_status(connection, principal, tenant_id, "active")


ROUTES = [list_tenants, get_tenant, suspend, resume]
