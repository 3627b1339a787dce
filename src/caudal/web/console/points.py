"""Points: what devices measure, with the meaning of their numbers."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import NotFound
from caudal.registry import audit, devices, points
from caudal.web.console import forms, history
from caudal.web.console.devices import PAGE, READ, WRITE
from caudal.web.console.filters import number
from caudal.web.console.overview_data import value_of
from caudal.web.console.view import View
from caudal.web.inject import Caller, Database, Given

KINDS = ("gauge", "counter", "delta", "state")
FIELDS = ("kind", "unit", "display_name", "limit_low", "limit_high")


@get("/points", guards=READ)
async def point_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Points by search and kind."""
    given = request.query_params
    kind = given.get("kind") if given.get("kind") in KINDS else None
    async with door.read() as connection:
        found = await points.find(
            connection, search=given.get("search"), kind=kind, after=number(given, "after"), limit=PAGE
        )
        names = {
            row["id"]: row["title"]
            for row in await connection.fetch(
                "select id, coalesce(nullif(display_name, ''), name) as title from caudal.device"
                " where id = any($1)",
                [point.device_id for point in found.items],
            )
        }
    return view.page(
        "points.html", section="points", found=found, names=names, kinds=KINDS, kind=kind,
        search=given.get("search", ""), searched=bool(given.get("search") or kind),
    )  # fmt: skip


@get("/points/{point_id:int}", guards=READ)
async def point_page(
    request: Request[Any, Any, Any], point_id: FromPath[int], view: Given[View], door: Database
) -> Response[str]:
    """One point: its history and its meaning."""
    if point_id > 2**31 - 1:
        raise NotFound("There is no such point.")
    async with door.read() as connection:
        point = await points.get(connection, point_id)
        device = await devices.get(connection, point.device_id)
        latest = await connection.fetchrow("select * from caudal.series_latest($1)", [point_id])
    return view.page(
        "point.html", section="points", point=point, device=device, kinds=KINDS, latest=latest,
        value_of=value_of, spans=history.SPANS, span=history.span(request.query_params)[0],
    )  # fmt: skip


@post("/points/{point_id:int}", guards=WRITE, status_code=200)
async def change_point(
    request: Request[Any, Any, Any],
    point_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Say what a point means."""
    given = forms.patch(points.PointPatch, forms.texts(await request.form()), FIELDS)
    async with door.write() as connection:
        await points.change(connection, point_id, given)
        await audit.record(connection, principal, "point.changed", f"point:{point_id}")
    return view.go(f"/console/points/{point_id}", done="saved")


ROUTES = [point_list, point_page, change_point]
