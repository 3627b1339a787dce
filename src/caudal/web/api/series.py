"""What was measured: series, aggregates, consumption, time in states, latest values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Stream

from caudal.core.errors import TooLarge
from caudal.insight import consumption, export, live, queries, replacements, states
from caudal.insight.replacements import Replacement, ReplacementIn
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"live_hub"})
READ = [requires(Action.TELEMETRY_READ)]
WRITE = [requires(Action.REGISTRY_WRITE)]

Id = Annotated[int, PathParameter(ge=1, le=2**31 - 1)]

Series = Annotated[
    list[str],
    QueryParameter(min_items=1, description="Ids, or device/point; repeat it for several at once"),
]
From = Annotated[datetime, QueryParameter(name="from", description="First instant, with its offset")]
To = Annotated[datetime, QueryParameter(name="to", description="The instant after the last")]
Intervals = Annotated[
    str | None,
    QueryParameter(
        max_length=8,
        description="`raw`, or 30s, 15m, 1h, 1d, 1mo; left out, `pixels` buckets suffice",
    ),
]


class Latest(msgspec.Struct, frozen=True):
    """The newest sample of a point; `age` in seconds, `quality` where it is known."""

    id: int
    device_id: int
    device: str
    device_title: str
    point: str
    title: str
    kind: str
    unit: str | None
    site: str | None
    ts: datetime | None
    value: float | bool | str | None
    quality: int | None
    age: float | None


class LatestValues(msgspec.Struct, frozen=True):
    """Every point of a site, also those that never reported."""

    items: list[Latest]


@get("/api/series/data", guards=READ)
async def data(
    door: Database,
    series: Series,
    start: From,
    end: To,
    interval: Intervals = None,
    pixels: Annotated[int, QueryParameter(ge=1, le=queries.MAX_BUCKETS)] = 1000,
    agg: Annotated[
        list[queries.Aggregation] | None,
        QueryParameter(description="Repeat it; avg, min and max when left out"),
    ] = None,
    zone: Annotated[
        str | None,
        QueryParameter(max_length=64, description="Where days begin; the account's own when left out"),
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=queries.MAX_POINTS, description="Raw samples of each series at most")
    ] = 20_000,
    fmt: Annotated[
        Literal["json", "csv", "arrow", "parquet"],
        QueryParameter(name="format", description="How to write it"),
    ] = "json",
) -> Response[queries.Answer] | Stream:
    """Samples or aggregates of several points at once.

    With min and max no peak is lost however wide the buckets. In JSON, `notes` says what is not as asked. The
    other formats hold all of a span, or are refused.
    """
    query = queries.SeriesQuery(
        tuple(series), start, end, interval, pixels,
        tuple(agg) if agg else ("avg", "min", "max"), zone, limit,
    )  # fmt: skip
    if fmt == "json":
        return Response(await queries.read(door.read, query))
    if interval == "raw":
        table = await export.samples(door.read, query)
    else:
        answer = await queries.read(door.read, query)
        if answer.notes:
            # A file has no place to say that it is not as asked.
            raise TooLarge(f"{answer.notes[0]} Ask for that interval, a shorter span, or JSON.")
        table = export.aggregates(answer)
    return _download(table, fmt, f"series-{start:%Y%m%d}-{end:%Y%m%d}")


def _download(table: export.Table, name: str, title: str) -> Stream:
    chosen = export.FORMATS[name]
    return Stream(
        chosen.encode(table),
        media_type=chosen.media_type,
        headers={"content-disposition": f'attachment; filename="{title}.{chosen.suffix}"'},
    )


@get("/api/series/consumption", guards=READ)
async def consumed(
    door: Database,
    series: Series,
    start: From,
    end: To,
    unit: Annotated[consumption.Unit, QueryParameter(description="Of the account's own zone")] = "day",
) -> consumption.Report:
    """What counters and deltas counted, by hour, day or month of the account's own zone.

    The buckets are whole: those that touch the span asked for.
    """
    return await consumption.read(door.read, series, unit, start, end)


@get("/api/series/states", guards=READ)
async def time_in_states(
    door: Database,
    series: Series,
    start: From,
    end: To,
    interval: Annotated[str, QueryParameter(max_length=8)] = "1d",
) -> states.StateAnswer:
    """Seconds in each state of booleans and texts; what nobody reported for an hour is unknown."""
    return await states.read(door.read, series, start, end, interval)


@get("/api/series/latest", guards=READ)
async def latest(
    door: Database,
    site: Annotated[
        str | None,
        QueryParameter(
            min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="Left out: all of the account"
        ),
    ] = None,
) -> LatestValues:
    """The newest sample of every point of a site."""
    found = await queries.latest(door.read, site)
    return LatestValues([Latest(**item) for item in found])


@get("/api/series/live", guards=READ, media_type="text/event-stream")
async def live_values(
    request: Request[Any, Any, Any], door: Database, live_hub: Given[live.Hub], series: Series
) -> Stream:
    """Server-sent events: the newest values at once, then each time something new was committed.

    Each event's data is a JSON list of `{id, ts (ms), value}`. A comment every 15 s keeps the line open. It
    ends when the caller may no longer see them.
    """
    async with queries.limited(door.read) as connection:
        infos = await queries.resolve(connection, series, limit=live.MAX_SERIES)
    values = live_hub.follow(door.read, [info.id for info in infos])
    # Raised here, a refusal is an answer with a status.
    first: list[live.Value] = await anext(values, [])
    return Stream(
        _events(request, first, values), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _events(
    request: Request[Any, Any, Any], first: list[live.Value], values: AsyncGenerator[list[live.Value], None]
) -> AsyncIterator[bytes]:
    following: asyncio.Task[list[live.Value]] | None = None
    try:
        yield b"data: " + msgspec.json.encode(first) + b"\n\n"
        while True:
            following = following or asyncio.ensure_future(anext(values))
            done, _ = await asyncio.wait([following], timeout=15)
            if not done:
                yield b": still here\n\n"
                continue
            found, following = following.result(), None
            # Within PRINCIPAL_SECONDS a role taken away, a key withdrawn, a tenant suspended ends it.
            if not await request.app.state.gate.still(request, Action.TELEMETRY_READ):
                return
            yield b"data: " + msgspec.json.encode(found) + b"\n\n"
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        await values.aclose()


class Replacements(msgspec.Struct, frozen=True):
    """A counter's replaced dials, oldest first."""

    items: list[Replacement]


@get("/api/points/{point_id:int}/replacements", guards=READ)
async def list_replacements(point_id: Id, door: Database) -> Replacements:
    """When this counter's dial was replaced, and what the old and the new one showed."""
    async with door.read() as connection:
        return Replacements(await replacements.find(connection, point_id))


@post("/api/points/{point_id:int}/replacements", guards=WRITE, status_code=201)
async def create_replacement(
    point_id: Id, data: JSONBody[ReplacementIn], door: Database, principal: Caller
) -> Replacement:
    """Note that the dial was replaced: the next answer has it, however late it is noted."""
    async with door.write() as connection:
        made = await replacements.create(connection, point_id, data, by=principal.actor)
        await audit.record(connection, principal, "point.dial_replaced", f"point:{point_id}")
    return made


@delete("/api/points/{point_id:int}/replacements/{replacement_id:int}", guards=WRITE)
async def delete_replacement(point_id: Id, replacement_id: Id, door: Database, principal: Caller) -> None:
    """Take a replacement back that was none."""
    async with door.write() as connection:
        await replacements.delete(connection, point_id, replacement_id)
        await audit.record(connection, principal, "point.dial_not_replaced", f"point:{point_id}")


ROUTES = [
    data, consumed, time_in_states, latest, live_values,
    list_replacements, create_replacement, delete_replacement,
]  # fmt: skip
