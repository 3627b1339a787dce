"""Points of the caller's devices."""

from __future__ import annotations

from typing import Literal

from litestar import delete, get, patch, post
from litestar.params import FromQuery, JSONBody

from caudal.registry import audit, points
from caudal.registry.points import Point, PointIn, PointPatch
from caudal.web import pages
from caudal.web.api._registry import READ, WRITE, Id, Ref, Search, shown
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page


@get("/api/points", guards=READ)
async def list_points(
    door: Database,
    device_id: Ref = None,
    search: Search = None,
    kind: FromQuery[Literal["gauge", "counter", "delta", "state"] | None] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Point]:
    """The tenant's points."""
    async with door.read() as connection:
        return shown(
            await points.find(
                connection, device_id=device_id, search=search, kind=kind, after=pages.decode(cursor, int),
                limit=limit,
            )
        )  # fmt: skip


@post("/api/points", guards=WRITE, status_code=201)
async def create_point(data: JSONBody[PointIn], door: Database, principal: Caller) -> Point:
    """Declare a point of a device."""
    async with door.write() as connection:
        made = await points.create(connection, data)
        await audit.record(connection, principal, "point.created", f"point:{made.id}")
    return made


@get("/api/points/{point_id:int}", guards=READ)
async def get_point(point_id: Id, door: Database) -> Point:
    """One point."""
    async with door.read() as connection:
        return await points.get(connection, point_id)


@patch("/api/points/{point_id:int}", guards=WRITE)
async def change_point(point_id: Id, data: JSONBody[PointPatch], door: Database, principal: Caller) -> Point:
    """Say what a point's numbers are."""
    async with door.write() as connection:
        made = await points.change(connection, point_id, data)
        await audit.record(connection, principal, "point.changed", f"point:{point_id}")
    return made


@delete("/api/points/{point_id:int}", guards=WRITE, status_code=204)
async def delete_point(point_id: Id, door: Database, principal: Caller) -> None:
    """Delete a point that was declared and never measured."""
    async with door.write() as connection:
        await points.delete(connection, point_id)
        await audit.record(connection, principal, "point.deleted", f"point:{point_id}")


ROUTES = [delete_point, list_points, create_point, get_point, change_point]
