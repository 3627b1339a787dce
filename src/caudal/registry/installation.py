"""All tenants, as who runs the installation sees them through the API, which itself sees one at a time.

Each function asks one that has its owner's rights (docs/adr/0080): names, counts, limits and whether one is
suspended, never what a tenant stored. Whether the caller runs the installation is for the caller to check.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from caudal.core.errors import Conflict, NotFound
from caudal.registry import audit
from caudal.registry.paging import PAGE_MAX, Page
from caudal.registry.principal import Principal

Status: TypeAlias = Literal["active", "suspended"]
MOST = 2**31 - 1


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, what it has, and what it may. None: no limit of its own. Bytes were measured a while ago."""

    name: str
    status: Status
    people: int
    devices: int
    series: int
    max_series: int
    requests_per_second: int | None
    messages_per_second: int | None
    points_per_second: int | None
    storage_bytes: int | None
    used_bytes: int | None
    full: bool


class AnyTenant(Standing, frozen=True, kw_only=True):
    """The same with what tells it apart from others."""

    id: int
    display_name: str | None
    created_at: datetime


def _any(row: Any) -> AnyTenant:
    return AnyTenant(**{name: row[name] for name in AnyTenant.__struct_fields__})


async def find(connection: Any, *, after: int | None = None, limit: int = 50) -> Page[AnyTenant]:
    """Tenants by number, from behind `after`; `limit` at most PAGE_MAX."""
    limit = max(1, min(limit, PAGE_MAX))
    rows = await connection.fetch(
        "select * from caudal.console_tenants(null, $1, $2)", min(after or 0, MOST), limit + 1
    )
    return Page([_any(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None)


async def row_of(connection: Any, number: int) -> Any:
    """One tenant's row. Raises NotFound."""
    row = (
        await connection.fetchrow("select * from caudal.console_tenants($1)", number)
        if number <= MOST
        else None
    )
    if row is None:
        raise NotFound("There is no such tenant.")
    return row


async def get(connection: Any, number: int) -> AnyTenant:
    """One tenant. Raises NotFound."""
    return _any(await row_of(connection, number))


async def set_status(
    connection: Any, principal: Principal, number: int, status: Status, *, reason: str = ""
) -> AnyTenant:
    """Suspend a tenant, or let it work again; docs/people.md says what stands still.

    Noted in its own log as the operator's deed, and in that of who did it with their name. A second time
    changes and notes nothing. Raises NotFound, Conflict (one's own tenant).
    """
    found = await get(connection, number)
    if found.id == principal.tenant_id:
        raise Conflict("This tenant runs the installation: nobody could let it work again from here.")
    if await connection.fetchval("select caudal.console_set_status($1, $2, $3)", number, status, reason):
        await audit.record(
            connection, principal, f"tenant.{status}", f"tenant:{number}", name=found.name, reason=reason
        )
    return await get(connection, number)
