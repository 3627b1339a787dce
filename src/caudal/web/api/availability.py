"""How long devices and gateways were online."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

from litestar import get
from litestar.params import QueryParameter

from caudal.core.errors import InvalidInput, NotFound
from caudal.registry import presence
from caudal.registry.presence import Availability
from caudal.web.api._registry import READ, Id
from caudal.web.inject import Database

Time: TypeAlias = Annotated[datetime | None, QueryParameter(description="ISO 8601; UTC without an offset")]


async def _availability(
    door: Database, thing: presence.Thing, number: int, start: datetime | None, end: datetime | None
) -> Availability:
    until = _aware(end or datetime.now(UTC))
    since = _aware(start) if start else until - timedelta(days=1)
    if since > until:
        raise InvalidInput("start, end: the span ends before it begins.")
    async with door.read() as connection:
        found = await presence.availability(connection, thing, number, since, until)
    if found is None:
        raise NotFound(f"There is no such {thing}.")
    return found


def _aware(at: datetime) -> datetime:
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not 1970 <= at.year <= 9000:
        raise InvalidInput("start, end: give a year from 1970 to 9000.")
    return at


@get("/api/devices/{device_id:int}/availability", guards=READ)
async def device_availability(
    device_id: Id, door: Database, start: Time = None, end: Time = None
) -> Availability:
    """How long a device was online in a span: the last 24 hours when left out."""
    return await _availability(door, "device", device_id, start, end)


@get("/api/gateways/{gateway_id:int}/availability", guards=READ)
async def gateway_availability(
    gateway_id: Id, door: Database, start: Time = None, end: Time = None
) -> Availability:
    """How long a gateway was online in a span: the last 24 hours when left out."""
    return await _availability(door, "gateway", gateway_id, start, end)


ROUTES = [device_availability, gateway_availability]
