"""Devices that came unannounced: held until somebody claims them, and then nothing they sent is missing."""

from __future__ import annotations

from typing import Any, Protocol

import asyncpg
import msgspec
from msgspec import UNSET

from caudal.core.errors import Conflict

from . import devices, rules
from .paging import Page, Where, page


class Release(Protocol):
    """Sends held messages through ingest, in the order they came. Filled by the ingest pipeline."""

    async def release(self, tenant: str, device: str) -> int:
        """Release what `device` (its name) of `tenant` (its name) sent; returns the number of messages."""


class Held(msgspec.Struct):
    """A device in quarantine and what waits with it."""

    device: devices.Device
    messages: int
    bytes: int
    first_received: str | None
    last_received: str | None


class Claim(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of a device when it is claimed."""

    display_name: str | None = None
    site_id: int | None = None
    profile_id: int | None = None
    kind: str | None = None


_SELECT = """
select d.*, h.messages, h.bytes, h.first, h.last from caudal.device d
left join lateral (
  select count(*) as messages, coalesce(sum(length(payload)), 0) as bytes, min(received) as first,
         max(received) as last
  from caudal.held_message m where m.tenant_id = d.tenant_id and m.device_name = d.name) h on true"""


def _made(row: Any) -> Held:
    first, last = row["first"], row["last"]
    return Held(
        devices.made(row), row["messages"], int(row["bytes"]), first and first.isoformat(),
        last and last.isoformat(),
    )  # fmt: skip


async def find(
    connection: Any, *, search: str | None = None, after: int | None = None, limit: int = 50
) -> Page[Held]:
    """A page of devices in quarantine."""
    where = Where()
    where.fixed("d.status = 'quarantined'")
    where.search(("d.name",), search)
    return await page(connection, _SELECT, where, "d.id", _made, after, limit)


async def _quarantined(connection: Any, device: int) -> None:
    # Not `for update`: the messages of a release that is under way register points of this very device.
    status = await connection.fetchval(
        "select status from caudal.device where id = $1::bigint for no key update", device
    )
    if rules.existing(status, "device") not in ("quarantined", "rejected"):
        raise Conflict("The device is not in quarantine.")


async def claim(connection: Any, device: int, given: Claim) -> devices.Device:
    """Make the device active. Call `Release.release` after the commit.

    Claiming one that was rejected takes it back. Raises Conflict when its gateway is full.
    """
    await _quarantined(connection, device)
    try:
        await connection.execute("update caudal.device set status = 'active' where id = $1::bigint", device)
    except asyncpg.PostgresError as error:
        rules.refused(error)
    patch = devices.DevicePatch(
        **{
            field: UNSET if (value := getattr(given, field)) is None else value
            for field in Claim.__struct_fields__
        }
    )
    return await devices.change(connection, device, patch)


async def reject(connection: Any, device: int) -> int:
    """Refuse the device: what it sent becomes dead letters; returns how many messages."""
    await _quarantined(connection, device)
    await connection.execute("update caudal.device set status = 'rejected' where id = $1::bigint", device)
    return int(await connection.fetchval("select caudal.reject_held($1)", device))


async def unreleased(connection: Any, limit: int = 100) -> list[tuple[str, str]]:
    """(tenant, device) that are claimed and still have held messages: the release was interrupted."""
    rows = await connection.fetch(
        "select distinct t.name as tenant, d.name as device from caudal.held_message h"
        " join caudal.device d on d.tenant_id = h.tenant_id and d.name = h.device_name"
        " join caudal.tenant t on t.id = h.tenant_id"
        " where d.status in ('active', 'inactive', 'maintenance') limit $1",
        limit,
    )
    return [(row["tenant"], row["device"]) for row in rows]
