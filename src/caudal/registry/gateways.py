"""Gateways: boxes that speak for others, each known by its MAC."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from . import rules
from .paging import Page, Where, page, update
from .sites import number


class GatewayIn(msgspec.Struct, forbid_unknown_fields=True):
    """A gateway to make."""

    code: str
    mac: str
    name: str = ""
    description: str = ""
    site_id: int | None = None
    latitude: Decimal | None = None
    longitude: Decimal | None = None
    capacity: int = 8
    heartbeat_seconds: int = 300
    firmware: str | None = None
    hardware: str | None = None
    serial: str | None = None
    model: str | None = None


class GatewayPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What changes; what is left out stays. A gateway's MAC is what it is: a new box is a new gateway."""

    code: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    site_id: int | UnsetType | None = UNSET
    latitude: Decimal | UnsetType | None = UNSET
    longitude: Decimal | UnsetType | None = UNSET
    capacity: int | UnsetType = UNSET
    heartbeat_seconds: int | UnsetType = UNSET
    firmware: str | UnsetType | None = UNSET
    hardware: str | UnsetType | None = UNSET
    serial: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET


class Gateway(msgspec.Struct):
    """A gateway as it stands. `active_devices` never exceeds `capacity`."""

    id: int
    code: str
    mac: str
    name: str
    description: str
    site_id: int | None
    latitude: float | None
    longitude: float | None
    capacity: int
    heartbeat_seconds: int
    firmware: str | None
    hardware: str | None
    serial: str | None
    model: str | None
    status: Literal["online", "offline", "never_connected"]
    last_heard: str | None
    devices: int
    active_devices: int
    created_at: str


SELECT = """
select g.*, (select count(*) from caudal.device d where d.gateway_id = g.id) as devices,
       (select count(*) from caudal.device d
        where d.gateway_id = g.id and d.status = 'active') as active_devices
from caudal.gateway g"""


def presence(row: Any) -> Literal["online", "offline", "never_connected"]:
    """The state a row's `is_online` and `last_heard` say."""
    if row["last_heard"] is None:
        return "never_connected"
    return "online" if row["is_online"] else "offline"


def _made(row: Any) -> Gateway:
    heard = row["last_heard"]
    return Gateway(
        id=row["id"], code=row["code"], mac=row["mac"], name=row["name"], description=row["description"],
        site_id=row["site_id"], latitude=number(row["latitude"]), longitude=number(row["longitude"]),
        capacity=row["capacity"], heartbeat_seconds=row["heartbeat_seconds"], firmware=row["firmware"],
        hardware=row["hardware"], serial=row["serial"], model=row["model"], status=presence(row),
        last_heard=heard and heard.isoformat(), devices=row["devices"], active_devices=row["active_devices"],
        created_at=row["created_at"].isoformat(),
    )  # fmt: skip


def _short(field: str) -> Any:
    return lambda value: value and rules.text(value, field, most=100)


_CHECKS: dict[str, Any] = {
    "code": rules.gateway_code,
    "mac": rules.mac,
    "name": lambda value: rules.text(value, "name"),
    "description": lambda value: rules.text(value, "description", most=rules.TEXT_MAX),
    "site_id": lambda value: value,
    "latitude": lambda value: rules.coordinate(value, 90, "latitude"),
    "longitude": lambda value: rules.coordinate(value, 180, "longitude"),
    "capacity": lambda value: rules.whole(value, 1, 32, "capacity"),
    "heartbeat_seconds": lambda value: rules.whole(value, 1, 31_536_000, "heartbeat_seconds"),
    "firmware": _short("firmware"),
    "hardware": _short("hardware"),
    "serial": _short("serial"),
    "model": _short("model"),
}


async def _columns(connection: Any, given: GatewayIn | GatewayPatch) -> dict[str, Any]:
    columns = {
        field: check(value)
        for field, check in _CHECKS.items()
        if (value := getattr(given, field, UNSET)) is not UNSET
    }
    await rules.visible(connection, "site", columns.get("site_id"), "site_id")
    return columns


async def find(
    connection: Any,
    *,
    search: str | None = None,
    site_id: int | None = None,
    status: str | None = None,
    after: int | None = None,
    limit: int = 50,
) -> Page[Gateway]:
    """A page of gateways."""
    where = Where()
    where.search(("g.code", "g.mac", "g.name", "g.serial"), search)
    where.add("g.site_id = {}::bigint", site_id)
    if status is not None:
        rules.one_of(status, ("online", "offline", "never_connected"), "status")
        where.fixed(
            "g.last_heard is null"
            if status == "never_connected"
            else f"g.last_heard is not null and g.is_online is {status == 'online'}"
        )
    return await page(connection, SELECT, where, "g.id", _made, after, limit)


async def get(connection: Any, gateway: int) -> Gateway:
    """One gateway, or NotFound."""
    return _made(
        rules.existing(await connection.fetchrow(f"{SELECT} where g.id = $1::bigint", gateway), "gateway")
    )


async def create(connection: Any, given: GatewayIn) -> Gateway:
    """A new gateway. Raises InvalidInput, or Conflict when code or MAC are taken.

    That a MAC is taken is said also when another account has it: it is unique everywhere, and who holds
    the box must learn why it cannot be registered.
    """
    columns = await _columns(connection, given)
    names = ", ".join(columns)
    places = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    try:
        made = await connection.fetchval(
            f"insert into caudal.gateway(tenant_id, {names}) values (caudal.current_tenant(), {places})"
            " returning id",
            *columns.values(),
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    return await get(connection, made)


async def change(connection: Any, gateway: int, given: GatewayPatch) -> Gateway:
    """Change a gateway. Raises Conflict when it has more active devices than the new capacity."""
    columns = await _columns(connection, given)
    try:
        rules.existing(await update(connection, "gateway", gateway, columns) or None, "gateway")
    except asyncpg.PostgresError as error:
        rules.refused(error)
    return await get(connection, gateway)


async def delete(connection: Any, gateway: int) -> None:
    """Delete a gateway. Raises Conflict while it has devices."""
    try:
        gone = await connection.fetchval(
            "delete from caudal.gateway where id = $1::bigint returning id", gateway
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    rules.existing(gone, "gateway")
