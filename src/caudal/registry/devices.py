"""Devices: machines and meters, by a name unique in their tenant.

A meter's name is not chosen: behind the gateway `aa:…`, with the code `D01`, it is `aa:…/D01`, because
that is what its readings say.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from caudal.core.errors import Conflict, InvalidInput

from . import profiles, rules
from .gateways import presence
from .paging import Page, Where, page, update
from .sites import number


class DeviceIn(msgspec.Struct, forbid_unknown_fields=True):
    """A device to make. A meter needs gateway, code and Modbus address, and takes its name from them."""

    name: str | None = None
    display_name: str | None = None
    site_id: int | None = None
    gateway_id: int | None = None
    code: str | None = None
    kind: str = "sensor"
    modbus_register: int | None = None
    modbus_slave: int | None = None
    mode: str = "auto"
    status: str = "active"
    alarm_day: Decimal | None = None
    alarm_month: Decimal | None = None
    format: str | None = None
    profile_id: int | None = None
    metadata: dict[str, Any] = {}


class DevicePatch(msgspec.Struct, forbid_unknown_fields=True):
    """What changes; what is left out stays. A name that devices publish under cannot be changed."""

    display_name: str | UnsetType | None = UNSET
    site_id: int | UnsetType | None = UNSET
    gateway_id: int | UnsetType | None = UNSET
    code: str | UnsetType | None = UNSET
    kind: str | UnsetType = UNSET
    modbus_register: int | UnsetType | None = UNSET
    modbus_slave: int | UnsetType | None = UNSET
    mode: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    alarm_day: Decimal | UnsetType | None = UNSET
    alarm_month: Decimal | UnsetType | None = UNSET
    format: str | UnsetType | None = UNSET
    profile_id: int | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class Device(msgspec.Struct):
    """A device as it stands: `status` is what people decided, `presence` what was heard."""

    id: int
    name: str
    display_name: str | None
    site_id: int | None
    gateway_id: int | None
    code: str | None
    kind: str
    modbus_register: int | None
    modbus_slave: int | None
    mode: str
    status: Literal["active", "inactive", "maintenance", "quarantined", "rejected"]
    alarm_day: float | None
    alarm_month: float | None
    format: str | None
    profile_id: int | None
    metadata: dict[str, Any]
    presence: Literal["online", "offline", "never_connected"]
    last_heard: str | None
    created_at: str


SELECT = "select d.* from caudal.device d"


def made(row: Any) -> Device:
    """A row of caudal.device as a Device."""
    heard = row["last_heard"]
    return Device(
        id=row["id"], name=row["name"], display_name=row["display_name"], site_id=row["site_id"],
        gateway_id=row["gateway_id"], code=row["code"], kind=row["kind"],
        modbus_register=row["modbus_register"], modbus_slave=row["modbus_slave"], mode=row["mode"],
        status=row["status"], alarm_day=number(row["alarm_day"]), alarm_month=number(row["alarm_month"]),
        format=row["format"], profile_id=row["profile_id"], metadata=row["metadata"], presence=presence(row),
        last_heard=heard and heard.isoformat(), created_at=row["created_at"].isoformat(),
    )  # fmt: skip


_CHECKS: dict[str, Any] = {
    "display_name": lambda value: value and rules.text(value, "display_name"),
    "site_id": lambda value: value,
    "gateway_id": lambda value: value,
    "code": lambda value: None if value is None else rules.code(value, rules.DEVICE_CODE_MAX),
    "kind": lambda value: rules.one_of(value, rules.KINDS, "kind"),
    "modbus_register": lambda value: rules.whole(value, 1, 65535, "modbus_register"),
    "modbus_slave": lambda value: rules.whole(value, 1, 247, "modbus_slave"),
    "mode": lambda value: rules.one_of(value, rules.MODES, "mode"),
    "status": lambda value: rules.one_of(value, rules.STATUSES, "status"),
    "alarm_day": lambda value: rules.limit(value, "alarm_day"),
    "alarm_month": lambda value: rules.limit(value, "alarm_month"),
    "format": lambda value: value and rules.text(value, "format", most=40),
    "profile_id": lambda value: value,
    "metadata": rules.metadata,
}


async def _columns(connection: Any, given: DeviceIn | DevicePatch) -> dict[str, Any]:
    columns = {
        field: check(value)
        for field, check in _CHECKS.items()
        if (value := getattr(given, field)) is not UNSET
    }
    for table in ("site", "gateway", "profile"):
        await rules.visible(connection, table, columns.get(f"{table}_id"), f"{table}_id")
    return columns


def _whole(device: dict[str, Any]) -> None:
    """Rules that take more than one field."""
    rules.modbus(device["kind"], device["modbus_register"], device["modbus_slave"])
    if device["kind"] == "meter" and (device["gateway_id"] is None or device["code"] is None):
        raise InvalidInput("gateway_id, code: a meter stands behind a gateway, under a code.")
    if device["code"] is not None and device["gateway_id"] is None:
        raise InvalidInput("code: a code is a device's place behind a gateway; give gateway_id too.")


async def find(
    connection: Any,
    *,
    search: str | None = None,
    site_id: int | None = None,
    gateway_id: int | None = None,
    profile_id: int | None = None,
    status: str | None = None,
    kind: str | None = None,
    online: bool | None = None,
    after: int | None = None,
    limit: int = 50,
) -> Page[Device]:
    """A page of devices."""
    where = Where()
    where.search(("d.name", "d.display_name", "d.code"), search)
    where.add("d.site_id = {}::bigint", site_id)
    where.add("d.gateway_id = {}::bigint", gateway_id)
    where.add("d.profile_id = {}::bigint", profile_id)
    where.add(
        "d.status = {}",
        status and rules.one_of(status, (*rules.STATUSES, "quarantined", "rejected"), "status"),
    )
    where.add("d.kind = {}", kind and rules.one_of(kind, rules.KINDS, "kind"))
    where.add("d.is_online = {}", online)
    return await page(connection, SELECT, where, "d.id", made, after, limit)


async def get(connection: Any, device: int) -> Device:
    """One device, or NotFound."""
    return made(
        rules.existing(await connection.fetchrow(f"{SELECT} where d.id = $1::bigint", device), "device")
    )


async def _name(connection: Any, gateway: int, code: str) -> str:
    mac = await connection.fetchval("select mac from caudal.gateway where id = $1::bigint", gateway)
    return f"{mac}/{code}"


async def create(connection: Any, given: DeviceIn) -> Device:
    """A new device. Raises InvalidInput; Conflict when a name or code is taken or the gateway is full."""
    columns = await _columns(connection, given)
    _whole(columns)
    if given.name is not None and given.kind != "meter":
        columns["name"] = rules.topic_name(given.name, "name")
    elif given.gateway_id is not None and given.code is not None:
        columns["name"] = await _name(connection, given.gateway_id, columns["code"])
        if given.name not in (None, columns["name"]):
            raise InvalidInput(f"name: a meter's is made of its gateway and code: {columns['name']}.")
    else:
        raise InvalidInput("name: say what the device calls itself on its topic.")
    names = ", ".join(columns)
    places = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    try:
        new: int = await connection.fetchval(
            f"insert into caudal.device(tenant_id, {names}) values (caudal.current_tenant(), {places})"
            " returning id",
            *columns.values(),
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    if given.profile_id is not None:
        await profiles.apply(connection, given.profile_id, [new])
    return await get(connection, new)


async def change(connection: Any, device: int, given: DevicePatch) -> Device:
    """Change a device. One in quarantine is claimed or rejected, never just switched on."""
    columns = await _columns(connection, given)
    # Locked: rules over several fields are checked against what will stand, not what stood a moment ago.
    row = rules.existing(
        await connection.fetchrow(f"{SELECT} where d.id = $1::bigint for update", device), "device"
    )
    if row["status"] in ("quarantined", "rejected") and "status" in columns:
        raise Conflict("status: the device is in quarantine; claim or reject it.")
    if columns.keys() & {"kind", "code", "gateway_id", "modbus_register", "modbus_slave"}:
        _whole({**dict(row), **columns})
    if columns.keys() & {"code", "gateway_id"} and row["gateway_id"] is not None and row["code"] is not None:
        whole = {**dict(row), **columns}
        if row["name"] == await _name(connection, row["gateway_id"], row["code"]):
            if whole["gateway_id"] is None or whole["code"] is None:
                raise InvalidInput("gateway_id, code: this device is known by them; they can change, not go.")
            columns["name"] = await _name(connection, whole["gateway_id"], whole["code"])
    try:
        await update(connection, "device", device, columns)
    except asyncpg.PostgresError as error:
        rules.refused(error)
    if columns.get("profile_id") is not None:
        await profiles.apply(connection, columns["profile_id"], [device])
    return await get(connection, device)


async def delete(connection: Any, device: int) -> None:
    """Delete a device that never measured anything, with the points that were declared for it.

    Raises Conflict for one that did: its history stays, and it can be set to inactive.
    """
    if not await connection.fetchval("select caudal.forget_points($1, null)", device):
        raise Conflict("The device has measured; set it to inactive to keep its history.")
    try:
        gone = await connection.fetchval(
            "delete from caudal.device where id = $1::bigint returning id", device
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    rules.existing(gone, "device")
