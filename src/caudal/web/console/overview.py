"""The overview: what a technician, an energy manager and an operator look at first."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Request, Response, get

from caudal.registry.permissions import Action
from caudal.web.console import filters as spans
from caudal.web.console import overview_data as data
from caudal.web.console.locale import MONTHS, Locale
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Database, Given


@get("/", guards=[requires(Action.SELF_READ)])
async def overview(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """The page; who sees no telemetry is sent to what they do see."""
    if not view.may(Action.TELEMETRY_READ):
        return view.home()
    zone = view.locale.zone
    chosen = spans.read(request.query_params, zone)
    async with door.read() as connection:
        found = await data.read(connection, chosen, zone, request.query_params.get("measure"))
    measure = _measure(view.locale, found.measure)
    chart = {
        "kind": "bars",
        "label": measure,
        "labels": [label(view.locale, start, chosen.unit) for start, _ in found.timeline],
        "values": [value for _, value in found.timeline],
    }
    return view.page(
        "overview.html", section="overview", found=found, filters=chosen, spans=spans.SPANS, chart=chart,
        measures=[(name, _measure(view.locale, name)) for name in found.measures], measure=measure,
        unit=found.measure.removeprefix("unit:") if found.measure != "readings" else "",
        when=lambda start: label(view.locale, start, chosen.unit, full=True),
    )  # fmt: skip


def _measure(locale: Locale, name: str) -> str:
    if name == "readings":
        return locale.t("measure.readings")
    return locale.t("measure.consumption", unit=name.removeprefix("unit:") or locale.t("measure.no_unit"))


def label(locale: Locale, start: datetime, unit: str, *, full: bool = False) -> str:
    """A bucket's name: an hour, a day or a month, short for an axis or in full for a table."""
    local = start.astimezone(locale.zone)
    if unit == "hour":
        return f"{locale.day(start)}, {local:%H:%M}" if full else f"{local:%H:%M}"
    if unit == "month":
        return locale.month(start)
    return locale.day(start) if full else f"{local.day} {MONTHS[locale.language][local.month - 1]}"


ROUTES = [overview]
