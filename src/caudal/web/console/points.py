"""Points: what devices measure, with the meaning of their numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput, NotFound
from caudal.insight import replacements
from caudal.registry import audit, devices, points
from caudal.registry.permissions import Action
from caudal.web.api import series as series_api
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
    """One point: its history, its meaning, and when its dial was replaced."""
    _numbered(point_id)
    async with door.read() as connection:
        point = await points.get(connection, point_id)
        device = await devices.get(connection, point.device_id)
        latest = await connection.fetchrow("select * from caudal.series_latest($1)", [point_id])
        dials = await replacements.find(connection, point_id) if view.may(Action.TELEMETRY_READ) else []
    return view.page(
        "point.html", section="points", point=point, device=device, kinds=KINDS, latest=latest,
        value_of=value_of, spans=history.SPANS, span=history.span(request.query_params)[0], dials=dials,
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


@post("/points/{point_id:int}/replacements", guards=WRITE, status_code=200)
async def note_replacement(
    request: Request[Any, Any, Any],
    point_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Note that the dial was replaced; just as the API takes it, the instant in the account's zone."""
    _numbered(point_id)
    form = forms.texts(await request.form())
    given = replacements.ReplacementIn(
        at=_instant(form.get("at", ""), view.locale.zone),
        final_reading=forms.decimal(form, "final_reading"),
        start_reading=forms.decimal(form, "start_reading") or 0.0,
        note=form.get("note", "").strip(),
    )
    await series_api.create_replacement.fn(point_id, given, door, principal)
    return view.go(f"/console/points/{point_id}", done="dial_noted", part="dials")


@post("/points/{point_id:int}/replacements/{replacement_id:int}/withdraw", guards=WRITE, status_code=200)
async def take_replacement_back(
    point_id: FromPath[int],
    replacement_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """Take back a replacement that was none."""
    _numbered(point_id)
    if replacement_id > 2**63 - 1:
        raise NotFound("There is no such replacement.")
    await series_api.delete_replacement.fn(point_id, replacement_id, door, principal)
    return view.go(f"/console/points/{point_id}", done="deleted", part="dials")


def _numbered(point_id: int) -> None:
    if point_id > 2**31 - 1:
        raise NotFound("There is no such point.")


def _instant(text: str, zone: ZoneInfo) -> datetime:
    """What a field of day and time holds, in the account's zone; of an hour that comes twice, the first."""
    try:
        local = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidInput("at: give the day and the time.") from error
    if local.tzinfo is not None:
        return local
    at = local.replace(tzinfo=zone)
    try:
        # Where clocks were put forward, a time of the hour that was skipped is none.
        skipped = at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local
    except OverflowError as error:
        raise InvalidInput("at: give an instant between 1971 and now.") from error
    if skipped:
        raise InvalidInput(f"at: the clocks skipped that hour in {zone.key}.")
    return at


ROUTES = [point_list, point_page, change_point, note_replacement, take_replacement_back]
