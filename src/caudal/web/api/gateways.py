"""Gateways of the caller's tenant."""

from __future__ import annotations

from typing import Literal

from litestar import delete, get, patch, post
from litestar.params import FromQuery, JSONBody

from caudal.registry import audit, gateways
from caudal.registry.gateways import Gateway, GatewayIn, GatewayPatch
from caudal.web import pages
from caudal.web.api._registry import READ, WRITE, Id, Ref, Search, shown
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page


@get("/api/gateways", guards=READ)
async def list_gateways(
    door: Database,
    search: Search = None,
    site_id: Ref = None,
    status: FromQuery[Literal["online", "offline", "never_connected"] | None] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Gateway]:
    """The tenant's gateways."""
    async with door.read() as connection:
        return shown(
            await gateways.find(
                connection, search=search, site_id=site_id, status=status, after=pages.decode(cursor, int),
                limit=limit,
            )
        )  # fmt: skip


@post("/api/gateways", guards=WRITE, status_code=201)
async def create_gateway(data: JSONBody[GatewayIn], door: Database, principal: Caller) -> Gateway:
    """Make a gateway. Its MAC is unique on the whole platform."""
    async with door.write() as connection:
        made = await gateways.create(connection, data)
        await audit.record(connection, principal, "gateway.created", f"gateway:{made.id}", mac=made.mac)
    return made


@get("/api/gateways/{gateway_id:int}", guards=READ)
async def get_gateway(gateway_id: Id, door: Database) -> Gateway:
    """One gateway."""
    async with door.read() as connection:
        return await gateways.get(connection, gateway_id)


@patch("/api/gateways/{gateway_id:int}", guards=WRITE)
async def change_gateway(
    gateway_id: Id, data: JSONBody[GatewayPatch], door: Database, principal: Caller
) -> Gateway:
    """Change a gateway."""
    async with door.write() as connection:
        made = await gateways.change(connection, gateway_id, data)
        await audit.record(connection, principal, "gateway.changed", f"gateway:{gateway_id}")
    return made


@delete("/api/gateways/{gateway_id:int}", guards=WRITE, status_code=204)
async def delete_gateway(gateway_id: Id, door: Database, principal: Caller) -> None:
    """Delete a gateway that has no devices."""
    async with door.write() as connection:
        await gateways.delete(connection, gateway_id)
        await audit.record(connection, principal, "gateway.deleted", f"gateway:{gateway_id}")


ROUTES = [list_gateways, create_gateway, get_gateway, change_gateway, delete_gateway]
