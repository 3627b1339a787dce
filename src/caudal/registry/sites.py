"""Sites: places with a time zone, where gateways and devices stand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from . import rules
from .paging import Page, Where, page, update


class SiteIn(msgspec.Struct, forbid_unknown_fields=True):
    """A site to make. `name` is what stands on a topic."""

    name: str
    display_name: str | None = None
    time_zone: str | None = None
    latitude: Decimal | None = None
    longitude: Decimal | None = None


class SitePatch(msgspec.Struct, forbid_unknown_fields=True):
    """What changes; what is left out stays."""

    name: str | UnsetType = UNSET
    display_name: str | UnsetType | None = UNSET
    time_zone: str | UnsetType | None = UNSET
    latitude: Decimal | UnsetType | None = UNSET
    longitude: Decimal | UnsetType | None = UNSET


class Site(msgspec.Struct):
    """A site as it stands."""

    id: int
    name: str
    display_name: str | None
    time_zone: str | None
    latitude: float | None
    longitude: float | None
    created_at: str
    gateways: int
    devices: int


SELECT = """
select s.*, (select count(*) from caudal.gateway g where g.site_id = s.id) as gateways,
       (select count(*) from caudal.device d where d.site_id = s.id) as devices
from caudal.site s"""


def _made(row: Any) -> Site:
    return Site(
        row["id"], row["name"], row["display_name"], row["time_zone"], number(row["latitude"]),
        number(row["longitude"]), row["created_at"].isoformat(), row["gateways"], row["devices"],
    )  # fmt: skip


def number(value: Decimal | None) -> float | None:
    """A numeric of at most 15 digits as a float, which keeps them all."""
    return None if value is None else float(value)


def _columns(given: SiteIn | SitePatch) -> dict[str, Any]:
    checks: dict[str, Any] = {
        "name": lambda value: rules.topic_name(value, "name"),
        "display_name": lambda value: value and rules.text(value, "display_name"),
        "time_zone": rules.time_zone,
        "latitude": lambda value: rules.coordinate(value, 90, "latitude"),
        "longitude": lambda value: rules.coordinate(value, 180, "longitude"),
    }
    return {
        field: check(value)
        for field, check in checks.items()
        if (value := getattr(given, field)) is not UNSET
    }


async def find(
    connection: Any, *, search: str | None = None, after: int | None = None, limit: int = 50
) -> Page[Site]:
    """A page of sites."""
    where = Where()
    where.search(("s.name", "s.display_name"), search)
    return await page(connection, SELECT, where, "s.id", _made, after, limit)


async def get(connection: Any, site: int) -> Site:
    """One site, or NotFound."""
    return _made(rules.existing(await connection.fetchrow(f"{SELECT} where s.id = $1::bigint", site), "site"))


async def create(connection: Any, given: SiteIn) -> Site:
    """A new site. Raises InvalidInput, or Conflict when the name is taken."""
    columns = _columns(given)
    try:
        made = await connection.fetchval(
            "insert into caudal.site(tenant_id, name, display_name, time_zone, latitude, longitude)"
            " values (caudal.current_tenant(), $1, $2, $3, $4, $5) returning id",
            *columns.values(),
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    return await get(connection, made)


async def change(connection: Any, site: int, given: SitePatch) -> Site:
    """Change a site."""
    try:
        rules.existing(await update(connection, "site", site, _columns(given)) or None, "site")
    except asyncpg.PostgresError as error:
        rules.refused(error)
    return await get(connection, site)


async def delete(connection: Any, site: int) -> None:
    """Delete a site where nothing stands any more."""
    try:
        gone = await connection.fetchval("delete from caudal.site where id = $1::bigint returning id", site)
    except asyncpg.PostgresError as error:
        rules.refused(error)
    rules.existing(gone, "site")
