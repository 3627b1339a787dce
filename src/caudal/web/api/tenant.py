"""The caller's tenant: its name and policies, and its quotas."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import msgspec
from litestar import get, patch
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from caudal.core.errors import InvalidInput, NotFound
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.registry.settings import PeopleSettings
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"people_settings"})
UnknownDevices = Literal["register", "hold", "refuse"]
_COLUMNS = "name, display_name, time_zone, unknown_devices, retention_days, max_series"


class Tenant(msgspec.Struct, frozen=True):
    """A tenant as its people see it."""

    name: str
    display_name: str | None
    time_zone: str
    unknown_devices: UnknownDevices
    retention_days: int | None
    max_series: int


class TenantChange(msgspec.Struct, frozen=True):
    """What to change; left out: as it is."""

    display_name: Annotated[str, msgspec.Meta(max_length=200)] | UnsetType | None = UNSET
    time_zone: Annotated[str, msgspec.Meta(max_length=100)] | UnsetType = UNSET
    unknown_devices: UnknownDevices | UnsetType = UNSET
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=100000)] | UnsetType | None = UNSET


class Quotas(msgspec.Struct, frozen=True):
    """How much the tenant may do, and what it has; null: no limit of its own.

    `storage_used` (bytes) and `points` (samples kept) were measured at `measured_at`: every minute where
    there is a quota of storage. `full`: it is used up, and what comes is refused.
    """

    requests_per_second: int | None
    messages_per_second: int | None
    points_per_second: int | None
    storage_bytes: int | None
    max_series: int
    series: int
    members: int
    storage_used: int | None = None
    points: int | None = None
    full: bool = False
    measured_at: datetime | None = None


@get("/api/tenant", guards=[requires(Action.TENANT_READ)])
async def read_tenant(door: Database) -> Tenant:
    """The caller's tenant."""
    async with door.read() as connection:
        row = await connection.fetchrow(f"select {_COLUMNS} from caudal.tenant")
    return _tenant(row)


@patch("/api/tenant", guards=[requires(Action.TENANT_WRITE)])
async def change_tenant(data: JSONBody[TenantChange], door: Database, principal: Caller) -> Tenant:
    """Change the tenant's name on screen, time zone or policies."""
    if data.time_zone is not UNSET and data.time_zone not in available_timezones():
        raise InvalidInput("That is no time zone of the IANA database, such as America/Sao_Paulo.")
    changes = {key: value for key, value in msgspec.structs.asdict(data).items() if value is not UNSET}
    # The names are the struct's own fields, never what a caller wrote.
    words = ", ".join(f"{name} = ${number}" for number, name in enumerate(changes, 1))
    async with door.write() as connection:
        row = await connection.fetchrow(
            f"update caudal.tenant set {words} returning {_COLUMNS}"
            if changes
            else f"select {_COLUMNS} from caudal.tenant",
            *changes.values(),
        )
        if changes:
            await audit.record(connection, principal, "tenant.changed", principal.tenant, **changes)
    return _tenant(row)


@get("/api/quotas", guards=[requires(Action.TENANT_READ)])
async def read_quotas(door: Database, people_settings: Given[PeopleSettings]) -> Quotas:
    """What the tenant may use, and what it uses."""
    async with door.read() as connection:
        row = await connection.fetchrow(
            """
            select q.requests_per_second, q.messages_per_second, q.points_per_second, q.storage_bytes,
                   t.max_series, (select count(*) from caudal.series) as series,
                   (select count(*) from caudal.membership) as members,
                   u.storage_bytes as storage_used, u.points, coalesce(u.over, false) as full, u.measured_at
            from caudal.tenant t left join caudal.quota q on q.tenant_id = t.id
            left join caudal.usage u on u.tenant_id = t.id
            """
        )
    if row is None:
        raise NotFound("Your tenant is gone.")
    own = dict(row)
    own["requests_per_second"] = own["requests_per_second"] or people_settings.rate_limit_tenant or None
    return Quotas(**own)


def _tenant(row: Any) -> Tenant:
    if row is None:
        raise NotFound("Your tenant is gone.")
    return Tenant(**row)


ROUTES = [read_tenant, change_tenant, read_quotas]
