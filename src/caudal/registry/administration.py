"""What the installation's administrator does to tenants and people, as the tables' owner.

There is no role above tenants in the API (docs/adr/0070): who may do this is who has the database. Each deed
is in the tenant's audit log, as `operator`'s.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from caudal.core.errors import Conflict, InvalidInput, NotFound

from . import audit
from .installation import Standing, Status
from .passwords import Passwords
from .permissions import Role

NO_TENANT = "There is no tenant {}. `caudal tenant list` shows those there are."
Policy: TypeAlias = Literal["register", "hold", "refuse"]


class TenantLine(Standing, frozen=True, kw_only=True):
    """The same with what becomes of its unknown devices, and when its bytes were measured."""

    unknown_devices: Policy
    measured_at: datetime | None


class Quota(msgspec.Struct, frozen=True):
    """What to change of a tenant's quotas: left out stays, None takes the limit away."""

    requests_per_second: int | UnsetType | None = UNSET
    messages_per_second: int | UnsetType | None = UNSET
    points_per_second: int | UnsetType | None = UNSET
    storage_bytes: int | UnsetType | None = UNSET
    max_series: int | UnsetType = UNSET


class PersonLine(msgspec.Struct, frozen=True):
    """A person in one tenant. `locked_until`: too many wrong passwords for one of their names."""

    username: str | None
    email: str | None
    tenant: str
    role: Role
    status: Literal["active", "disabled"]
    locked_until: datetime | None


_TENANTS = """
select t.name, t.status, t.unknown_devices, t.max_series,
  (select count(*) from caudal.membership m where m.tenant_id = t.id) as people,
  (select count(*) from caudal.device d where d.tenant_id = t.id) as devices,
  (select count(*) from caudal.series r where r.tenant_id = t.id) as series,
  q.requests_per_second, q.messages_per_second, q.points_per_second, q.storage_bytes,
  u.storage_bytes as used_bytes, coalesce(u.over, false) as "full", u.measured_at
from caudal.tenant t left join caudal.quota q on q.tenant_id = t.id
left join caudal.usage u on u.tenant_id = t.id
where $1::text is null or t.name = $1 order by t.name"""

_PEOPLE = """
select p.username, p.email, t.name as tenant, m.role, p.status,
  (select max(f.locked_until) from caudal.sign_in_failure f
   where f.login in (lower(p.username), lower(p.email)) and f.locked_until > now()) as locked_until
from caudal.person p join caudal.membership m on m.person_id = p.id join caudal.tenant t on t.id = m.tenant_id
where ($1::text is null or t.name = $1) order by t.name, coalesce(p.username, p.email)"""


async def tenants(connection: Any, name: str | None = None) -> list[TenantLine]:
    """All tenants, or one. Raises NotFound for a name that is none."""
    rows = await connection.fetch(_TENANTS, name)
    if name is not None and not rows:
        raise NotFound(NO_TENANT.format(name))
    return [TenantLine(**row) for row in rows]


async def _tenant(connection: Any, name: str) -> int:
    found = await connection.fetchval("select id from caudal.tenant where name = $1 for update", name)
    if found is None:
        raise NotFound(NO_TENANT.format(name))
    return int(found)


async def noted(connection: Any, tenant: str, action: str, target: str) -> None:
    """Write down a deed that was done elsewhere."""
    await audit.by_operator(connection, await _tenant(connection, tenant), action, target)


async def set_status(connection: Any, name: str, status: Status) -> None:
    """Suspend a tenant (nobody of it comes in, no device either) or let it work again. Raises NotFound."""
    async with connection.transaction():
        number = await _tenant(connection, name)
        await connection.execute("update caudal.tenant set status = $2 where id = $1", number, status)
        await audit.by_operator(connection, number, f"tenant.{status}", name)


async def set_policy(connection: Any, name: str, policy: Policy) -> None:
    """What happens to devices of the tenant that nobody registered. Raises NotFound."""
    async with connection.transaction():
        number = await _tenant(connection, name)
        await connection.execute(
            "update caudal.tenant set unknown_devices = $2 where id = $1", number, policy
        )
        await audit.by_operator(connection, number, "tenant.changed", name, unknown_devices=policy)


async def set_quota(connection: Any, name: str, quota: Quota) -> TenantLine:
    """Change a tenant's quotas; in force within seconds. Raises InvalidInput, NotFound."""
    changes = {key: value for key, value in msgspec.structs.asdict(quota).items() if value is not UNSET}
    for key, value in changes.items():
        if value is not None and not 0 < value < (2**63 if key == "storage_bytes" else 2**31):
            raise InvalidInput(f"{key}: give a whole number above 0 and below 2 to the {_bits(key)}.")
    async with connection.transaction():
        number = await _tenant(connection, name)
        if (most := changes.pop("max_series", None)) is not None:
            await connection.execute("update caudal.tenant set max_series = $2 where id = $1", number, most)
        await connection.execute(
            "insert into caudal.quota(tenant_id) values ($1) on conflict do nothing", number
        )
        for column, value in changes.items():
            # The names are the struct's own fields, never what somebody typed.
            await connection.execute(
                f"update caudal.quota set {column} = $2 where tenant_id = $1", number, value
            )
        if "storage_bytes" in changes:
            await connection.fetchval("select caudal.measure_usage(true)")
        noted = {**changes, **({"max_series": most} if most is not None else {})}
        await audit.by_operator(connection, number, "tenant.quota_changed", name, **noted)
        return (await tenants(connection, name))[0]


def _bits(key: str) -> int:
    return 63 if key == "storage_bytes" else 31


async def people(connection: Any, tenant: str | None = None) -> list[PersonLine]:
    """People with their role, in one tenant or in all."""
    return [
        PersonLine(**{**row, "role": Role(row["role"])}) for row in await connection.fetch(_PEOPLE, tenant)
    ]


async def _person(connection: Any, login: str) -> Any:
    found = await connection.fetchval(
        "select id from caudal.person where lower(username) = lower($1) or lower(email) = lower($1)", login
    )
    if found is None:
        raise NotFound(f"Nobody has the user name or e-mail address {login}.")
    return found


async def set_role(connection: Any, login: str, tenant: str, role: Role | None) -> None:
    """Give somebody a role in a tenant, which makes them belong to it; None takes them out.

    Raises NotFound, and Conflict when the tenant would be left without an owner.
    """
    async with connection.transaction():
        who, number = await _person(connection, login), await _tenant(connection, tenant)
        try:
            if role is None:
                await connection.execute(
                    "delete from caudal.membership where tenant_id = $1 and person_id = $2", number, who
                )
            else:
                await connection.execute(
                    "insert into caudal.membership(tenant_id, person_id, role) values ($1, $2, $3)"
                    " on conflict on constraint membership_pkey do update set role = excluded.role",
                    number, who, role,
                )  # fmt: skip
        except asyncpg.CheckViolationError as error:
            raise Conflict("A tenant keeps at least one owner.") from error
        await audit.by_operator(connection, number, "person.role_changed", f"user:{who}", role=role)


async def reset_password(connection: Any, passwords: Passwords, login: str) -> str:
    """A new password for somebody, which ends all their sessions and their lock-out. Raises NotFound."""
    password = secrets.token_urlsafe(15)
    hashed = await passwords.hash(password)
    async with connection.transaction():
        who = await _person(connection, login)
        await connection.execute("select caudal.set_password($1, $2)", who, hashed)
        for row in await connection.fetch(
            "select tenant_id from caudal.membership where person_id = $1", who
        ):
            await audit.by_operator(connection, row["tenant_id"], "person.password_reset", f"user:{who}")
    return password
