"""Passwords of devices and gateways: made by us, shown once, rotated, both valid for a grace period."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from datetime import timedelta
from typing import Any, Literal

import msgspec

from caudal.core.errors import InvalidInput

from . import access, rules

Thing = Literal["device", "gateway"]

# Mosquitto's own default. More would protect a password that somebody chose; these are 256 random bits.
MOSQUITTO_ITERATIONS = 101


class Issued(msgspec.Struct):
    """A new password, in the only answer that shows it."""

    username: str
    mosquitto_username: str
    password: str
    due_at: str
    expires_at: str


class Credential(msgspec.Struct):
    """What is known of a password: never the password."""

    id: int
    created_at: str
    created_by: str
    due_at: str
    expires_at: str
    state: Literal["valid", "due", "expired", "revoked"]


def mosquitto_hash(password: str, *, salt: bytes | None = None) -> str:
    """`password` in the form of a Mosquitto password file: `$7$`, PBKDF2 with SHA-512."""
    salt = salt or os.urandom(12)
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, MOSQUITTO_ITERATIONS, 64)
    return f"$7${MOSQUITTO_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


async def issue(
    connection: Any, thing: Thing, number: int, settings: access.AccessSettings, *, by: str = ""
) -> Issued:
    """A new password for a device or gateway. Earlier ones go on for the grace period, no longer.

    Raises InvalidInput when its name cannot stand on a topic, so that a password would open nothing.
    """
    user = await _user(connection, thing, number)
    password = secrets.token_urlsafe(32)
    grace = timedelta(days=settings.credential_grace_days)
    # The two newest at most: who rotates twice in a hurry leaves no trail of valid passwords.
    await connection.execute(
        f"update caudal.credential set expires_at = least(expires_at, now() + $2),"
        f" revoked_at = case when id < (select max(id) from caudal.credential c where c.{thing}_id = $1)"
        f"  then coalesce(revoked_at, now()) else revoked_at end"
        f" where {thing}_id = $1 and revoked_at is null",
        number, grace,
    )  # fmt: skip
    due = timedelta(days=settings.credential_days)
    row = await connection.fetchrow(
        f"insert into caudal.credential(tenant_id, {thing}_id, digest, mosquitto, created_by,"
        f" due_at, expires_at)"
        f" select tenant_id, id, $2, $3, $4, now() + $5, now() + $5 + $6 from caudal.{thing} where id = $1"
        f" returning due_at, expires_at",
        number, access.digest(password.encode()), mosquitto_hash(password), by, due, grace,
    )  # fmt: skip
    return Issued(
        user, access.mosquitto_user(user), password, row["due_at"].isoformat(), row["expires_at"].isoformat()
    )


async def _user(connection: Any, thing: Thing, number: int) -> str:
    if thing == "gateway":
        return str(
            rules.existing(
                await connection.fetchval(
                    "select mac from caudal.gateway where id = $1::bigint for update", number
                ),
                "gateway",
            )
        )
    row = rules.existing(
        await connection.fetchrow(
            "select t.name as tenant, d.name from caudal.device d join caudal.tenant t on t.id = d.tenant_id"
            " where d.id = $1::bigint for update of d",
            number,
        ),
        "device",
    )
    tenant, device = row["tenant"], row["name"]
    if not access.addressable(device) or not access.addressable(tenant) or ":d:" in tenant:
        raise InvalidInput("The device's name cannot stand on a topic of its own; its gateway speaks for it.")
    return access.device_user(tenant, device)


async def find(connection: Any, thing: Thing, number: int) -> list[Credential]:
    """All passwords of a device or gateway, newest first."""
    rules.existing(
        await connection.fetchval(f"select id from caudal.{thing} where id = $1::bigint", number), thing
    )
    rows = await connection.fetch(
        f"select *, case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired'"
        f" when due_at <= now() then 'due' else 'valid' end as state"
        f" from caudal.credential where {thing}_id = $1::bigint order by id desc limit 100",
        number,
    )
    return [
        Credential(
            row["id"], row["created_at"].isoformat(), row["created_by"], row["due_at"].isoformat(),
            row["expires_at"].isoformat(), row["state"],
        )
        for row in rows
    ]  # fmt: skip


async def revoke(connection: Any, thing: Thing, number: int) -> int:
    """End all passwords of a device or gateway at once; returns how many."""
    rules.existing(
        await connection.fetchval(f"select id from caudal.{thing} where id = $1::bigint", number), thing
    )
    rows = await connection.fetch(
        f"update caudal.credential set revoked_at = now()"
        f" where {thing}_id = $1::bigint and revoked_at is null returning id",
        number,
    )
    return len(rows)


class Due(msgspec.Struct):
    """A device or gateway whose newest password should be replaced."""

    device_id: int | None
    gateway_id: int | None
    due_at: str
    expires_at: str


async def due(connection: Any, limit: int = 200) -> list[Due]:
    """Whose newest password is due, soonest to expire first."""
    rows = await connection.fetch(
        "select * from (select distinct on (device_id, gateway_id) device_id, gateway_id, due_at, expires_at"
        " from caudal.credential where revoked_at is null order by device_id, gateway_id, id desc) newest"
        " where due_at <= now() and expires_at > now() order by expires_at limit $1",
        limit,
    )
    return [
        Due(row["device_id"], row["gateway_id"], row["due_at"].isoformat(), row["expires_at"].isoformat())
        for row in rows
    ]


async def add_user(
    connection: Any,
    name: str,
    role: Literal["backend", "dashboard", "administrator"],
    tenant: str | None = None,
) -> str:
    """Make (or give a new password to) a backend, dashboard or administrator; returns the password."""
    password = secrets.token_urlsafe(32)
    number = None
    if tenant is not None:
        number = rules.existing(
            await connection.fetchval("select id from caudal.tenant where name = $1", tenant), "tenant"
        )
    if name == access.ADMINISTRATOR or access.split_mac(name) or access.split_device(name):
        raise InvalidInput(f"name: {name} is taken by the installation.")
    await connection.execute(
        "insert into caudal.mqtt_user(name, role, tenant_id, digest, mosquitto) values ($1, $2, $3, $4, $5)"
        " on conflict (name) do update set role = excluded.role, tenant_id = excluded.tenant_id,"
        "  digest = excluded.digest, mosquitto = excluded.mosquitto",
        name, role, number, access.digest(password.encode()), mosquitto_hash(password),
    )  # fmt: skip
    return password
