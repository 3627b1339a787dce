"""Devices of the caller's tenant."""

from __future__ import annotations

from typing import Literal

from litestar import delete, get, patch, post
from litestar.params import FromQuery, JSONBody

from caudal.registry import audit, devices
from caudal.registry.devices import Device, DeviceIn, DevicePatch
from caudal.web import pages
from caudal.web.api._registry import READ, WRITE, Id, Ref, Search, shown
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page


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
    """Delete a device that never measured anything; one that did is set to `inactive`."""
    async with door.write() as connection:
        await devices.delete(connection, device_id)
        await audit.record(connection, principal, "device.deleted", f"device:{device_id}")


ROUTES = [list_devices, create_device, get_device, change_device, delete_device]
