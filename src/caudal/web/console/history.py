"""History charts: which points over which span, and the numbers as uPlot wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar import Request, Response, get

from caudal.core.errors import InvalidInput
from caudal.insight import queries, states
from caudal.registry.permissions import Action
from caudal.registry.points import Point
from caudal.web.console.filters import number
from caudal.web.console.locale import Locale
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.inject import Database, Given

SPANS = {"1h": 1, "24h": 24, "7d": 168, "30d": 720, "12mo": 8784}
# Whole buckets that the time in states is summed over.
INTERVALS = {"1h": "1m", "24h": "1h", "7d": "1h", "30d": "1h", "12mo": "1d"}
MOST = 5
_LIMITS = "select id, limit_low, limit_high from caudal.series where id = any($1)"


class Line(msgspec.Struct):
    """One point's line; `min` and `max` give the band around it, where buckets hold more than one sample.

    `low` and `high` are the point's limits in its unit; `limits` says them in words.
    """

    label: str
    values: list[float | None]
    min: list[float | None] | None
    max: list[float | None] | None
    step: bool
    low: float | None = None
    high: float | None = None
    limits: str | None = None

    def outside(self, place: int) -> bool:
        """Whether something in this bucket was beyond a limit."""
        value = self.values[place]
        if value is None:
            return False
        least = self.min[place] if self.min else value
        most = self.max[place] if self.max else value
        return (self.low is not None and (value if least is None else least) < self.low) or (
            self.high is not None and (value if most is None else most) > self.high
        )


class Chart(msgspec.Struct):
    """Lines over common instants (s since 1970), within the span [start, end] that was asked for."""

    zone: str
    t: list[float]
    series: list[Line]
    notes: list[str]
    start: float = 0.0
    end: float = 0.0
    kind: str = "lines"


def span(given: Mapping[str, Any]) -> tuple[str, timedelta]:
    """The span that an address names; InvalidInput for none of ours."""
    name = str(given.get("span") or "24h")
    if name not in SPANS:
        raise InvalidInput(f"span: one of {', '.join(SPANS)}.")
    return name, timedelta(hours=SPANS[name])


def chosen(given: Mapping[str, Any], points: Sequence[Point]) -> list[int]:
    """The points to draw: those the address names, else the first that hold numbers, else the first."""
    known = {point.id for point in points}
    wanted = [int(part) for part in str(given.get("points") or "").split(",") if part.isdecimal()]
    found = [number for number in wanted if number in known][:MOST]
    return found or [point.id for point in points if point.kind != "state"][:1] or [p.id for p in points[:1]]


async def _read(given: Mapping[str, Any], view: View, door: Database) -> Chart:
    names = [
        part for part in str(given.get("points") or "").split(",") if part.isdecimal() and len(part) < 10
    ]
    end = datetime.now(UTC)
    query = queries.SeriesQuery(
        tuple(dict.fromkeys(names[:MOST])), end - span(given)[1], end, pixels=600,
        aggregations=("avg", "min", "max", "last"),
    )  # fmt: skip
    answer = await queries.read(door.read, query)
    chart = drawn(answer, view.locale.zone.key)
    async with door.read() as connection:
        rows = await connection.fetch(_LIMITS, [column.series.id for column in answer.series])
    limits = {row["id"]: (row["limit_low"], row["limit_high"]) for row in rows}
    for line, column in zip(chart.series, answer.series, strict=True):
        line.low, line.high = limits.get(column.series.id, (None, None))
        line.limits = _said(line, view.locale)
    chart.start, chart.end = query.start.timestamp(), query.end.timestamp()
    return chart


def _said(line: Line, locale: Locale) -> str | None:
    if line.low is None and line.high is None:
        return None
    low, high = locale.number(line.low), locale.number(line.high)
    if line.high is None:
        return locale.t("history.limits_low", name=line.label, low=low)
    if line.low is None:
        return locale.t("history.limits_high", name=line.label, high=high)
    return locale.t("history.limits_both", name=line.label, low=low, high=high)


@get("/history.json", guards=[requires(Action.TELEMETRY_READ)])
async def history(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[bytes]:
    """A chart's numbers."""
    chart = await _read(request.query_params, view, door)
    return Response(
        msgspec.json.encode(chart), media_type="application/json", headers={"cache-control": "no-store"}
    )


@get("/history", guards=[requires(Action.TELEMETRY_READ)])
async def history_table(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """The same numbers as a table, the newest first: for who cannot see a chart, or wants to copy one."""
    chart = await _read(request.query_params, view, door)
    return view.page("history_table.html", chart=chart, rows=list(range(len(chart.t)))[::-1])


@get("/history/states", guards=[requires(Action.TELEMETRY_READ)])
async def time_in_states(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """How long a point was in each of its states, of booleans and words; the longest first."""
    given = request.query_params
    name, length = span(given)
    end = datetime.now(UTC)
    point = number(given, "point")
    answer = await states.read(door.read, [str(point or 0)], end - length, end, INTERVALS[name])
    column = answer.series[0]
    spent = {state: sum(seconds) for state, seconds in column.states.items()}
    unknown = sum(column.unknown)
    whole = sum(spent.values()) + unknown
    return view.page(
        "states.html", spent=sorted(spent.items(), key=lambda one: -one[1]), unknown=unknown,
        whole=whole or 1.0,
    )  # fmt: skip


def drawn(answer: queries.Answer, zone: str) -> Chart:
    """The columns on one axis of time; where a series has no bucket it has no line."""
    instants = sorted({at for column in answer.series for at in column.t})
    place = {at: index for index, at in enumerate(instants)}
    lines = []
    for column in answer.series:

        def spread(name: str, column: queries.Column = column) -> list[float | None]:
            values: list[float | None] = [None] * len(instants)
            for at, value in zip(column.t, column.values[name], strict=True):
                values[place[at]] = value
            return values

        info = column.series
        counts = info.kind == "counter"
        label = f"{info.title} ({info.unit})" if info.unit else info.title
        banded = not counts and column.values["min"] != column.values["max"]
        lines.append(
            Line(
                label,
                spread("last" if counts else "avg"),
                spread("min") if banded else None,
                spread("max") if banded else None,
                info.kind == "state",
            )
        )
    return Chart(zone, [at / 1000 for at in instants], lines, answer.notes)


ROUTES = [history, history_table, time_in_states]
