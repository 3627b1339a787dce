"""Points: what a device measures, with the meaning of its numbers."""

from __future__ import annotations

import math
from typing import Any

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from caudal.core.errors import Conflict, InvalidInput

from . import rules
from .paging import Page, Where, page, update


class PointIn(msgspec.Struct, forbid_unknown_fields=True):
    """A point to declare before the device first sends it."""

    device_id: int
    name: str
    kind: str = "gauge"
    unit: str | None = None
    display_name: str | None = None
    limit_low: float | None = None
    limit_high: float | None = None


class PointPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What changes; what is left out stays."""

    kind: str | UnsetType = UNSET
    unit: str | UnsetType | None = UNSET
    display_name: str | UnsetType | None = UNSET
    limit_low: float | UnsetType | None = UNSET
    limit_high: float | UnsetType | None = UNSET


class Point(msgspec.Struct):
    """A point as it stands; `id` is the number of its series."""

    id: int
    device_id: int
    name: str
    kind: str
    unit: str | None
    display_name: str | None
    limit_low: float | None
    limit_high: float | None
    created_at: str


SELECT = "select r.* from caudal.series r"


def _made(row: Any) -> Point:
    return Point(
        row["id"], row["device_id"], row["name"], row["kind"], row["unit"], row["display_name"],
        row["limit_low"], row["limit_high"], row["created_at"].isoformat(),
    )  # fmt: skip


def finite(value: float | None, field: str) -> float | None:
    """A number that is one, or none."""
    if value is not None and not math.isfinite(value):
        raise InvalidInput(f"{field}: give a number.")
    return value


_CHECKS: dict[str, Any] = {
    "kind": lambda value: rules.one_of(value, rules.POINT_KINDS, "kind"),
    "unit": lambda value: value and rules.text(value, "unit", most=60),
    "display_name": lambda value: value and rules.text(value, "display_name"),
    "limit_low": lambda value: finite(value, "limit_low"),
    "limit_high": lambda value: finite(value, "limit_high"),
}


def _columns(given: PointIn | PointPatch) -> dict[str, Any]:
    return {
        field: check(value)
        for field, check in _CHECKS.items()
        if (value := getattr(given, field)) is not UNSET
    }


def _ordered(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise InvalidInput("limit_low, limit_high: the low limit is above the high one.")


async def find(
    connection: Any,
    *,
    device_id: int | None = None,
    search: str | None = None,
    kind: str | None = None,
    after: int | None = None,
    limit: int = 50,
) -> Page[Point]:
    """A page of points."""
    where = Where()
    where.add("r.device_id = {}::bigint", device_id)
    where.search(("r.name", "r.display_name"), search)
    where.add("r.kind = {}", kind and rules.one_of(kind, rules.POINT_KINDS, "kind"))
    return await page(connection, SELECT, where, "r.id", _made, after, limit)


async def get(connection: Any, point: int) -> Point:
    """One point, or NotFound."""
    return _made(
        rules.existing(await connection.fetchrow(f"{SELECT} where r.id = $1::bigint", point), "point")
    )


async def create(connection: Any, given: PointIn) -> Point:
    """Declare a point of a device. Raises Conflict when it has that name, or the tenant no room."""
    columns = _columns(given)
    _ordered(given.limit_low, given.limit_high)
    await rules.visible(connection, "device", given.device_id, "device_id")
    await room(connection, 1)
    columns["name"] = rules.text(given.name, "name", least=1)
    columns["device_id"] = given.device_id
    names = ", ".join(columns)
    places = ", ".join(f"${index}" for index in range(1, len(columns) + 1))
    try:
        new: int = await connection.fetchval(
            f"insert into caudal.series(tenant_id, {names}) values (caudal.current_tenant(), {places})"
            " returning id",
            *columns.values(),
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    return await get(connection, new)


async def delete(connection: Any, point: int) -> None:
    """Delete a point that was never measured. Raises Conflict for one that was: what it measured stays."""
    device = rules.existing(
        await connection.fetchval("select device_id from caudal.series where id = $1::bigint", point), "point"
    )
    if not await connection.fetchval("select caudal.forget_points($1, $2)", device, point):
        raise Conflict("The point has samples, which stay.")


async def room(connection: Any, wanted: int) -> None:
    """That the tenant may have `wanted` more series; Conflict when not."""
    left = await connection.fetchval(
        "select t.max_series - (select count(*) from caudal.series r where r.tenant_id = t.id)"
        " from caudal.tenant t where t.id = caudal.current_tenant()"
    )
    if left is not None and left < wanted:
        raise Conflict(f"The account's limit leaves room for {max(left, 0)} more points, not {wanted}.")


async def change(connection: Any, point: int, given: PointPatch) -> Point:
    """Change what is known of a point. Its name is the device's word and stays."""
    columns = _columns(given)
    row = rules.existing(
        await connection.fetchrow(f"{SELECT} where r.id = $1::bigint for update", point), "point"
    )
    whole = {**dict(row), **columns}
    _ordered(whole["limit_low"], whole["limit_high"])
    await update(connection, "series", point, columns)
    return await get(connection, point)
