"""Members of a tenant, invitations and API keys. Functions take a connection of a tenant transaction."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from caudal.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from caudal.registry import audit
from caudal.registry.accounts import digest
from caudal.registry.authenticate import KEY_PREFIX
from caudal.registry.permissions import NOT_FOR_KEYS, Action, Role
from caudal.registry.principal import Principal

INVITATION = timedelta(days=7)
RESET = timedelta(hours=1)


class Member(msgspec.Struct, frozen=True):
    """A person and their role in the tenant."""

    user_id: UUID
    username: str | None
    email: str | None
    display_name: str
    role: Role
    since: datetime


class Invitation(msgspec.Struct, frozen=True):
    """Somebody who may join until `expires_at`."""

    id: UUID
    email: str
    role: Role
    invited_by: UUID | None
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def to_member(row: Any) -> Member:
    """From a row of `members`."""
    return Member(
        row["id"], row["username"], row["email"], row["display_name"], Role(row["role"]), row["created_at"]
    )


def to_invitation(row: Any) -> Invitation:
    """From a row of `caudal.invitation`."""
    return Invitation(row["id"], row["email"], Role(row["role"]), row["invited_by"], row["created_at"],
                      row["expires_at"], row["accepted_at"])  # fmt: skip


def to_key(row: Any) -> Key:
    """From a row of `caudal.api_key`."""
    return Key(row["id"], row["name"], row["prefix"], row["scopes"], row["created_by"], row["created_at"],
               row["expires_at"], row["revoked_at"])  # fmt: skip


_MEMBERS = """
    select p.id, p.username, p.email, p.display_name, m.role, m.created_at
    from caudal.membership m join caudal.person p on p.id = m.person_id
"""
_INVITATION = "id, email, role, invited_by, created_at, expires_at, accepted_at"
_KEY = "id, name, prefix, scopes, created_by, created_at, expires_at, revoked_at"


async def members(connection: Any, *, limit: int, after: tuple[datetime, UUID] | None) -> list[Any]:
    """Rows of the tenant's members, who joined first first."""
    rows: list[Any] = await connection.fetch(
        _MEMBERS + "where $1::timestamptz is null or (m.created_at, m.person_id) > ($1, $2::uuid) "
        "order by m.created_at, m.person_id limit $3",
        *(after or (None, None)), limit,
    )  # fmt: skip
    return rows


async def member(connection: Any, user_id: UUID, *, lock: bool = False) -> Member:
    """One member. Raises NotFound."""
    row = await connection.fetchrow(
        _MEMBERS + "where m.person_id = $1" + (" for update of m" if lock else ""), user_id
    )
    if row is None:
        raise NotFound("There is no such person in your tenant.")
    return to_member(row)


async def change_role(connection: Any, principal: Principal, user_id: UUID, role: Role) -> Member:
    """Give a member another role. Raises NotFound, Forbidden, Conflict (the last owner)."""
    before = await member(connection, user_id, lock=True)
    _may_touch(principal, before.role, role)
    with _keeps_owner():
        await connection.execute(
            "update caudal.membership set role = $2 where person_id = $1", user_id, str(role)
        )
    await audit.record(
        connection, principal, "member.role_changed", f"user:{user_id}", before=before.role, after=role
    )
    return msgspec.structs.replace(before, role=role)


async def remove_member(connection: Any, principal: Principal, user_id: UUID) -> None:
    """Take a person out of the tenant. Raises NotFound, Forbidden, Conflict (the last owner)."""
    before = await member(connection, user_id, lock=True)
    _may_touch(principal, before.role)
    with _keeps_owner():
        await connection.execute("delete from caudal.membership where person_id = $1", user_id)
    await audit.record(connection, principal, "member.removed", f"user:{user_id}", role=before.role)


def _may_touch(principal: Principal, *roles: Role) -> None:
    if Role.OWNER in roles and not principal.may(Action.OWNERS_WRITE):
        raise Forbidden("Only an owner makes, changes or removes owners.")


@contextmanager
def _keeps_owner() -> Iterator[None]:
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "keeps_owner":
            raise
        raise Conflict("A tenant keeps at least one owner. Make another one first.") from error


async def invite(connection: Any, principal: Principal, email: str, role: Role) -> tuple[Invitation, str]:
    """Invite an address for seven days; returns the invitation and the secret to mail. Raises Forbidden."""
    _may_touch(principal, role)
    secret = secrets.token_urlsafe(32)
    # A newer invitation of the same address takes the place of the older.
    await connection.execute(
        "delete from caudal.invitation where lower(email) = lower($1) and accepted_at is null", email
    )
    row = await connection.fetchrow(
        "insert into caudal.invitation(tenant_id, email, role, digest, invited_by, expires_at) "
        f"values ($1, $2, $3, $4, $5, $6) returning {_INVITATION}",
        principal.tenant_id, email, str(role), digest(secret), principal.user_id,
        datetime.now(UTC) + INVITATION,
    )  # fmt: skip
    await audit.record(connection, principal, "invitation.sent", f"invitation:{row['id']}", role=role)
    return to_invitation(row), secret


async def invitations(connection: Any, *, limit: int, after: tuple[datetime, UUID] | None) -> list[Any]:
    """Rows of the tenant's invitations, newest first."""
    rows: list[Any] = await connection.fetch(
        f"select {_INVITATION} from caudal.invitation "
        "where $1::timestamptz is null or (created_at, id) < ($1, $2::uuid) "
        "order by created_at desc, id desc limit $3",
        *(after or (None, None)), limit,
    )  # fmt: skip
    return rows


async def withdraw_invitation(connection: Any, principal: Principal, invitation_id: UUID) -> None:
    """Make an invitation useless. Raises NotFound."""
    gone = await connection.fetchval(
        "delete from caudal.invitation where id = $1 and accepted_at is null returning id", invitation_id
    )
    if gone is None:
        raise NotFound("There is no such open invitation.")
    await audit.record(connection, principal, "invitation.withdrawn", f"invitation:{invitation_id}")


async def make_key(
    connection: Any, principal: Principal, name: str, scopes: list[Action], expires_at: datetime | None
) -> tuple[Key, str]:
    """A new API key with `scopes`; returns it and the whole key, which nobody can read again.

    Raises Forbidden for what the caller may not do, or what no key may; InvalidInput for a past expiry.
    """
    wanted = frozenset(scopes)
    refused = sorted((wanted - principal.allowed) | (wanted & NOT_FOR_KEYS))
    if refused:
        raise Forbidden(
            f"A key cannot be given {', '.join(refused)}: not yours to give, or for people alone."
        )
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidInput("The key would have expired already.")
    prefix = secrets.token_hex(6)
    whole = f"{KEY_PREFIX}{prefix}_{secrets.token_urlsafe(32)}"
    row = await connection.fetchrow(
        "insert into caudal.api_key(tenant_id, name, prefix, digest, scopes, created_by, expires_at) "
        f"values ($1, $2, $3, $4, $5, $6, $7) returning {_KEY}",
        principal.tenant_id, name, prefix, digest(whole), sorted(wanted), principal.user_id, expires_at,
    )  # fmt: skip
    await audit.record(
        connection, principal, "key.made", f"key:{row['id']}", name=name, scopes=sorted(wanted)
    )
    return to_key(row), whole


async def keys(connection: Any, *, limit: int, after: tuple[datetime, UUID] | None) -> list[Any]:
    """Rows of the tenant's API keys, newest first."""
    rows: list[Any] = await connection.fetch(
        f"select {_KEY} from caudal.api_key "
        "where $1::timestamptz is null or (created_at, id) < ($1, $2::uuid) "
        "order by created_at desc, id desc limit $3",
        *(after or (None, None)), limit,
    )  # fmt: skip
    return rows


async def revoke_key(connection: Any, principal: Principal, key_id: UUID) -> None:
    """Withdraw an API key, once. Raises NotFound."""
    gone = await connection.fetchval(
        "update caudal.api_key set revoked_at = now() where id = $1 and revoked_at is null returning id",
        key_id,
    )
    if gone is None:
        raise NotFound("There is no such API key in force.")
    await audit.record(connection, principal, "key.revoked", f"key:{key_id}")
