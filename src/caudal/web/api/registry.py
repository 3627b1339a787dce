"""Sites, gateways, devices, points and profiles of the caller's tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from litestar import Request, delete, get, patch, post, put
from litestar.params import FromQuery, JSONBody, PathParameter, QueryParameter
from litestar.response import Stream

from caudal.core.errors import InvalidInput, NotFound
from caudal.registry import audit, devices, gateways, paging, points, presence, profiles, sites, transfer
from caudal.registry.devices import Device, DeviceIn, DevicePatch
from caudal.registry.gateways import Gateway, GatewayIn, GatewayPatch
from caudal.registry.permissions import Action
from caudal.registry.points import Point, PointIn, PointPatch
from caudal.registry.presence import Availability
from caudal.registry.profiles import Profile, ProfileIn, Version
from caudal.registry.sites import Site, SiteIn, SitePatch
from caudal.registry.transfer import Report
from caudal.web import pages
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page

READ = [requires(Action.REGISTRY_READ)]
WRITE = [requires(Action.REGISTRY_WRITE)]
CSV_BYTES_MAX = 5 << 20

T = TypeVar("T")
Id: TypeAlias = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]
Ref: TypeAlias = Annotated[int | None, QueryParameter(ge=1, le=2**63 - 1)]
Search: TypeAlias = Annotated[str | None, QueryParameter(max_length=200, description="Text to look for")]


class VersionList(msgspec.Struct):
    """All versions of a profile, newest first."""

    items: list[Version]


def shown(found: paging.Page[T]) -> Page[T]:
    """A page of the registry as the API shows it."""
    return Page(found.items, None if found.after is None else pages.encode(found.after))


# -- sites


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


# -- gateways


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


# -- devices


@get("/api/devices", guards=READ)
async def list_devices(
    door: Database,
    search: Search = None,
    site_id: Ref = None,
    gateway_id: Ref = None,
    profile_id: Ref = None,
    status: FromQuery[Literal["active", "inactive", "maintenance", "quarantined", "rejected"] | None] = None,
    kind: FromQuery[Literal["meter", "sensor", "actuator"] | None] = None,
    online: FromQuery[bool | None] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Device]:
    """The tenant's devices."""
    async with door.read() as connection:
        return shown(
            await devices.find(
                connection, search=search, site_id=site_id, gateway_id=gateway_id, profile_id=profile_id,
                status=status, kind=kind, online=online, after=pages.decode(cursor, int), limit=limit,
            )
        )  # fmt: skip


@post("/api/devices", guards=WRITE, status_code=201)
async def create_device(data: JSONBody[DeviceIn], door: Database, principal: Caller) -> Device:
    """Make a device."""
    async with door.write() as connection:
        made = await devices.create(connection, data)
        await audit.record(connection, principal, "device.created", f"device:{made.id}", name=made.name)
    return made


@get("/api/devices/{device_id:int}", guards=READ)
async def get_device(device_id: Id, door: Database) -> Device:
    """One device."""
    async with door.read() as connection:
        return await devices.get(connection, device_id)


@patch("/api/devices/{device_id:int}", guards=WRITE)
async def change_device(
    device_id: Id, data: JSONBody[DevicePatch], door: Database, principal: Caller
) -> Device:
    """Change a device."""
    async with door.write() as connection:
        made = await devices.change(connection, device_id, data)
        await audit.record(connection, principal, "device.changed", f"device:{device_id}")
    return made


@delete("/api/devices/{device_id:int}", guards=WRITE, status_code=204)
async def delete_device(device_id: Id, door: Database, principal: Caller) -> None:
    """Delete a device that never measured anything."""
    async with door.write() as connection:
        await devices.delete(connection, device_id)
        await audit.record(connection, principal, "device.deleted", f"device:{device_id}")


# -- points


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


# -- profiles


@get("/api/profiles", guards=READ)
async def list_profiles(
    door: Database, search: Search = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[Profile]:
    """The tenant's device profiles."""
    async with door.read() as connection:
        after = pages.decode(cursor, int)
        return shown(await profiles.find(connection, search=search, after=after, limit=limit))


@post("/api/profiles", guards=WRITE, status_code=201)
async def create_profile(data: JSONBody[ProfileIn], door: Database, principal: Caller) -> Profile:
    """Make a profile."""
    async with door.write() as connection:
        made = await profiles.create(connection, data, principal.actor)
        await audit.record(connection, principal, "profile.created", f"profile:{made.id}", name=made.name)
    return made


@get("/api/profiles/{profile_id:int}", guards=READ)
async def get_profile(profile_id: Id, door: Database) -> Profile:
    """A profile in its newest version."""
    async with door.read() as connection:
        return await profiles.get(connection, profile_id)


@get("/api/profiles/{profile_id:int}/versions", guards=READ)
async def list_versions(profile_id: Id, door: Database) -> VersionList:
    """All versions of a profile."""
    async with door.read() as connection:
        return VersionList(await profiles.versions(connection, profile_id))


@put("/api/profiles/{profile_id:int}", guards=WRITE)
async def replace_profile(
    profile_id: Id,
    data: JSONBody[ProfileIn],
    door: Database,
    principal: Caller,
    expected: Annotated[
        int | None, QueryParameter(ge=1, le=2**31 - 1, description="The version known")
    ] = None,
) -> Profile:
    """Put the next version of a profile in force."""
    async with door.write() as connection:
        made = await profiles.replace(connection, profile_id, data, principal.actor, expected=expected)
        await audit.record(
            connection, principal, "profile.changed", f"profile:{profile_id}", version=made.version
        )
    return made


@delete("/api/profiles/{profile_id:int}", guards=WRITE, status_code=204)
async def delete_profile(profile_id: Id, door: Database, principal: Caller) -> None:
    """Delete a profile that no device uses."""
    async with door.write() as connection:
        await profiles.delete(connection, profile_id)
        await audit.record(connection, principal, "profile.deleted", f"profile:{profile_id}")


# -- presence


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


# -- CSV


async def _import(
    request: Request[Any, Any, Any], door: Database, principal: Caller, kind: transfer.Kind, dry_run: bool
) -> Report:
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("The file is not UTF-8; save it as such.") from error
    async with door.write() as connection:
        report = await transfer.load(connection, kind, text, dry_run=dry_run)
        if report.stored:
            await audit.record(connection, principal, f"{kind}.imported", "", count=report.good)
    return report


@post("/api/gateways/import", guards=WRITE, status_code=200, request_max_body_size=CSV_BYTES_MAX)
async def import_gateways(
    request: Request[Any, Any, Any], door: Database, principal: Caller, dry_run: FromQuery[bool] = True
) -> Report:
    """Import gateways from CSV (UTF-8, the body): a dry run unless `dry_run=false`. All lines or none."""
    return await _import(request, door, principal, "gateways", dry_run)


@post("/api/devices/import", guards=WRITE, status_code=200, request_max_body_size=CSV_BYTES_MAX)
async def import_devices(
    request: Request[Any, Any, Any], door: Database, principal: Caller, dry_run: FromQuery[bool] = True
) -> Report:
    """Import devices from CSV (UTF-8, the body): a dry run unless `dry_run=false`. All lines or none."""
    return await _import(request, door, principal, "devices", dry_run)


def _export(door: Database, kind: transfer.Kind) -> Stream:
    async def fetch(query: str, after: int) -> list[Any]:
        async with door.read() as connection:
            rows: list[Any] = await connection.fetch(query, after)
            return rows

    async def lines() -> AsyncIterator[str]:
        async for text in transfer.dump(fetch, kind):
            yield text

    return Stream(
        lines, media_type="text/csv", headers={"content-disposition": f'attachment; filename="{kind}.csv"'}
    )


@get("/api/gateways/export", guards=READ, media_type="text/csv")
async def export_gateways(door: Database) -> Stream:
    """All gateways as CSV, as `import` takes it."""
    return _export(door, "gateways")


@get("/api/devices/export", guards=READ, media_type="text/csv")
async def export_devices(door: Database) -> Stream:
    """All devices as CSV, as `import` takes it."""
    return _export(door, "devices")


ROUTES = [
    list_sites, create_site, get_site, change_site, delete_site,
    list_gateways, create_gateway, get_gateway, change_gateway, delete_gateway,
    list_devices, create_device, get_device, change_device, delete_device,
    list_points, create_point, get_point, change_point,
    list_profiles, create_profile, get_profile, list_versions, replace_profile, delete_profile,
    device_availability, gateway_availability,
    import_gateways, import_devices, export_gateways, export_devices,
]  # fmt: skip
