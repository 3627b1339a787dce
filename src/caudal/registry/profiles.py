"""Device profiles: what all devices of one make have in common, versioned.

A device follows its profile's newest version; which one a command was checked against is written with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput

from . import rules
from .paging import Page, Where, page


class PointSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A point that every such device has."""

    name: str
    kind: Literal["gauge", "counter", "delta", "state"] = "gauge"
    unit: str | None = None
    limit_low: float | None = None
    limit_high: float | None = None


class Param(msgspec.Struct, forbid_unknown_fields=True):
    """A parameter of a command. `minimum` and `maximum` bound a number, or the length of a text."""

    name: str
    type: Literal["number", "integer", "boolean", "text"]
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str | float] | None = None


class CommandSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A command that such devices understand. `ack_seconds`: how long the answer may take."""

    name: str
    params: list[Param] = []
    ack_seconds: int = 30


class ProfileIn(msgspec.Struct, forbid_unknown_fields=True):
    """A profile to make, or its next version."""

    name: str
    format: str | None = None
    heartbeat_seconds: int = 300
    points: list[PointSpec] = []
    commands: list[CommandSpec] = []


class Profile(msgspec.Struct):
    """A profile in its newest version."""

    id: int
    name: str
    version: int
    format: str | None
    heartbeat_seconds: int
    points: list[PointSpec]
    commands: list[CommandSpec]
    devices: int
    created_at: str
    updated_at: str


class Version(msgspec.Struct):
    """A version as it was."""

    version: int
    document: ProfileIn
    created_at: str
    created_by: str


SELECT = """
select p.*, (select count(*) from caudal.device d where d.profile_id = p.id) as devices
from caudal.profile p"""


def _made(row: Any) -> Profile:
    return Profile(
        row["id"], row["name"], row["version"], row["format"], row["heartbeat_seconds"],
        msgspec.convert(row["points"], list[PointSpec]), msgspec.convert(row["commands"], list[CommandSpec]),
        row["devices"], row["created_at"].isoformat(), row["updated_at"].isoformat(),
    )  # fmt: skip


def _unique(names: Sequence[str], field: str) -> None:
    if len(set(names)) != len(names):
        raise InvalidInput(f"{field}: a name is there twice.")


def _checked(given: ProfileIn) -> ProfileIn:
    if len(given.points) > 1000 or len(given.commands) > 100:
        raise InvalidInput("points, commands: at most 1000 points and 100 commands.")
    for point in given.points:
        rules.text(point.name, "points.name", least=1)
        rules.text(point.unit or "", "points.unit", most=60)
        if (
            point.limit_low is not None
            and point.limit_high is not None
            and point.limit_low > point.limit_high
        ):
            raise InvalidInput(f"points.{point.name}: the low limit is above the high one.")
    _unique([point.name for point in given.points], "points")
    for command in given.commands:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", command.name):
            raise InvalidInput(
                "commands.name: begin with a letter; letters, digits, '_', '.', '-'; at most 64."
            )
        rules.whole(command.ack_seconds, 1, 86_400, f"commands.{command.name}.ack_seconds")
        if len(command.params) > 50:
            raise InvalidInput(f"commands.{command.name}.params: at most 50.")
        for param in command.params:
            rules.text(param.name, "params.name", most=64, least=1)
            for choice in param.choices or ():
                if isinstance(choice, str):
                    rules.text(choice, "params.choices")
        _unique([param.name for param in command.params], f"commands.{command.name}.params")
    _unique([command.name for command in given.commands], "commands")
    return msgspec.structs.replace(
        given,
        name=rules.text(given.name, "name", most=100, least=1),
        format=given.format and rules.text(given.format, "format", most=40),
        heartbeat_seconds=rules.whole(given.heartbeat_seconds, 1, 31_536_000, "heartbeat_seconds") or 1,
    )


async def find(
    connection: Any, *, search: str | None = None, after: int | None = None, limit: int = 50
) -> Page[Profile]:
    """A page of profiles."""
    where = Where()
    where.search(("p.name",), search)
    return await page(connection, SELECT, where, "p.id", _made, after, limit)


async def get(connection: Any, profile: int) -> Profile:
    """One profile, or NotFound."""
    found = await connection.fetchrow(f"{SELECT} where p.id = $1::bigint", profile)
    return _made(rules.existing(found, "profile"))


async def versions(connection: Any, profile: int) -> list[Version]:
    """All versions, newest first."""
    await get(connection, profile)
    rows = await connection.fetch(
        "select * from caudal.profile_version where profile_id = $1::bigint order by version desc", profile
    )
    return [
        Version(
            row["version"], msgspec.convert(row["document"], ProfileIn), row["created_at"].isoformat(),
            row["created_by"],
        )
        for row in rows
    ]  # fmt: skip


async def create(connection: Any, given: ProfileIn, by: str = "") -> Profile:
    """A new profile, in version 1."""
    given = _checked(given)
    try:
        new: int = await connection.fetchval(
            "insert into caudal.profile(tenant_id, name, format, heartbeat_seconds, points, commands)"
            " values (caudal.current_tenant(), $1, $2, $3, $4, $5) returning id",
            given.name, given.format, given.heartbeat_seconds, msgspec.to_builtins(given.points),
            msgspec.to_builtins(given.commands),
        )  # fmt: skip
    except asyncpg.PostgresError as error:
        rules.refused(error)
    await _record(connection, new, 1, given, by)
    return await get(connection, new)


async def replace(
    connection: Any, profile: int, given: ProfileIn, by: str = "", *, expected: int | None = None
) -> Profile:
    """The next version, in force for all devices at once. Conflict if the newest is not `expected`."""
    given = _checked(given)
    row = rules.existing(
        await connection.fetchrow(
            "select version from caudal.profile where id = $1::bigint for update", profile
        ),
        "profile",
    )
    if expected is not None and expected != row["version"]:
        raise Conflict(f"The profile is at version {row['version']}, not {expected}; look at it again.")
    try:
        await connection.execute(
            "update caudal.profile set name = $2, format = $3, heartbeat_seconds = $4, points = $5,"
            " commands = $6, version = $7, updated_at = now() where id = $1::bigint",
            profile, given.name, given.format, given.heartbeat_seconds, msgspec.to_builtins(given.points),
            msgspec.to_builtins(given.commands), row["version"] + 1,
        )  # fmt: skip
    except asyncpg.PostgresError as error:
        rules.refused(error)
    await _record(connection, profile, row["version"] + 1, given, by)
    await apply(connection, profile, None)
    return await get(connection, profile)


async def _record(connection: Any, profile: int, version: int, given: ProfileIn, by: str) -> None:
    await connection.execute(
        "insert into caudal.profile_version(profile_id, tenant_id, version, document, created_by)"
        " values ($1, caudal.current_tenant(), $2, $3, $4)",
        profile, version, msgspec.to_builtins(given), by,
    )  # fmt: skip


async def apply(connection: Any, profile: int, only: Sequence[int] | None) -> None:
    """Give the profile's devices (`only` these, when named) its format and points.

    Points that a device has and the profile does not name stay: they carry its history.
    """
    await connection.execute(
        "update caudal.device d set format = p.format from caudal.profile p"
        " where p.id = d.profile_id and p.id = $1 and ($2::bigint[] is null or d.id = any($2))"
        " and d.format is distinct from p.format",
        profile, only,
    )  # fmt: skip
    await connection.execute(
        "insert into caudal.series(tenant_id, device_id, name, kind, unit, limit_low, limit_high)"
        " select d.tenant_id, d.id, w.name, coalesce(w.kind, 'gauge'), w.unit, w.limit_low, w.limit_high"
        " from caudal.profile p join caudal.device d on d.profile_id = p.id,"
        "  jsonb_to_recordset(p.points) as w(name text, kind text, unit text,"
        "   limit_low float8, limit_high float8)"
        " where p.id = $1 and ($2::bigint[] is null or d.id = any($2))"
        " order by d.id, w.name"
        " on conflict (device_id, name) do update set kind = excluded.kind,"
        "  unit = coalesce(excluded.unit, series.unit), limit_low = excluded.limit_low,"
        "  limit_high = excluded.limit_high"
        " where (series.kind, series.limit_low, series.limit_high)"
        "   is distinct from (excluded.kind, excluded.limit_low, excluded.limit_high)"
        "  or excluded.unit is distinct from series.unit",
        profile, only,
    )  # fmt: skip
    over = await connection.fetchval(
        "select (select count(*) from caudal.series r where r.tenant_id = t.id) - t.max_series"
        " from caudal.tenant t where t.id = caudal.current_tenant()"
    )
    if over is not None and over > 0:
        raise Conflict(f"The profile's points would exceed the account's limit of series by {over}.")


async def delete(connection: Any, profile: int) -> None:
    """Delete a profile that no device uses."""
    try:
        gone = await connection.fetchval(
            "delete from caudal.profile where id = $1::bigint returning id", profile
        )
    except asyncpg.PostgresError as error:
        rules.refused(error)
    rules.existing(gone, "profile")
