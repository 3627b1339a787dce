"""Members, invitations, API keys and the audit log of the caller's tenant."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from caudal.registry import audit, people
from caudal.registry.audit import Entry
from caudal.registry.mail import Mail, Post
from caudal.registry.people import Invitation, Key, Member, to_invitation, to_key, to_member
from caudal.registry.permissions import Action, Role
from caudal.registry.settings import PeopleSettings
from caudal.web import pages
from caudal.web.api.auth import Email
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given
from caudal.web.pages import Cursor, Limit, Page

NEEDS = frozenset({"post", "people_settings"})
Moment = tuple[datetime, UUID]


class RoleChange(msgspec.Struct, frozen=True):
    """The role to have from now on."""

    role: Role


class NewInvitation(msgspec.Struct, frozen=True):
    """Whom to invite, as what."""

    email: Email
    role: Role


class NewKey(msgspec.Struct, frozen=True):
    """What to call a key, what it may do (actions of the permission table), until when."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    scopes: Annotated[list[Action], msgspec.Meta(min_length=1, max_length=100)]
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class MadeKey(msgspec.Struct, frozen=True):
    """A new API key. `key` is shown here and never again."""

    key: str
    about: Key


@get("/api/people", guards=[requires(Action.PEOPLE_READ)])
async def list_people(door: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[Member]:
    """The tenant's members, who joined first first."""
    after = pages.decode(cursor, Moment)
    async with door.read() as connection:
        rows = await people.members(connection, limit=limit + 1, after=after)
    return pages.page(rows, limit, of=to_member, key=lambda row: (row["created_at"], row["id"]))


@get("/api/people/{user_id:uuid}", guards=[requires(Action.PEOPLE_READ)])
async def get_person(user_id: FromPath[UUID], door: Database) -> Member:
    """One member."""
    async with door.read() as connection:
        return await people.member(connection, user_id)


@patch("/api/people/{user_id:uuid}", guards=[requires(Action.PEOPLE_WRITE)])
async def change_role(
    user_id: FromPath[UUID], data: JSONBody[RoleChange], door: Database, principal: Caller
) -> Member:
    """Give a member another role; in force within seconds."""
    async with door.write() as connection:
        return await people.change_role(connection, principal, user_id, data.role)


@delete("/api/people/{user_id:uuid}", guards=[requires(Action.PEOPLE_WRITE)], status_code=204)
async def remove_person(user_id: FromPath[UUID], door: Database, principal: Caller) -> None:
    """Take a person out of the tenant; in force within seconds."""
    async with door.write() as connection:
        await people.remove_member(connection, principal, user_id)


@get("/api/invitations", guards=[requires(Action.PEOPLE_READ)])
async def list_invitations(door: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[Invitation]:
    """The tenant's invitations, newest first."""
    after = pages.decode(cursor, Moment)
    async with door.read() as connection:
        rows = await people.invitations(connection, limit=limit + 1, after=after)
    return pages.page(rows, limit, of=to_invitation, key=lambda row: (row["created_at"], row["id"]))


@post("/api/invitations", guards=[requires(Action.PEOPLE_WRITE)], status_code=201)
async def invite(
    data: JSONBody[NewInvitation],
    door: Database,
    principal: Caller,
    post: Given[Post],
    people_settings: Given[PeopleSettings],
) -> Invitation:
    """Invite an e-mail address; good for seven days."""
    async with door.write() as connection:
        made, secret = await people.invite(connection, principal, data.email, data.role)
    # In the fragment, which browsers keep to themselves: no proxy's log has it.
    link = f"{people_settings.public_url.rstrip('/')}/invitation#{secret}"
    text = f"{principal.name} invites you to join {principal.tenant} as {data.role}. Good for seven days."
    post.put(Mail(data.email, f"Invitation to {principal.tenant}", text, link))
    return made


@delete("/api/invitations/{invitation_id:uuid}", guards=[requires(Action.PEOPLE_WRITE)], status_code=204)
async def withdraw_invitation(invitation_id: FromPath[UUID], door: Database, principal: Caller) -> None:
    """Make an open invitation useless."""
    async with door.write() as connection:
        await people.withdraw_invitation(connection, principal, invitation_id)


@get("/api/keys", guards=[requires(Action.KEYS_READ)])
async def list_keys(door: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[Key]:
    """The tenant's API keys, newest first, without their secrets."""
    after = pages.decode(cursor, Moment)
    async with door.read() as connection:
        rows = await people.keys(connection, limit=limit + 1, after=after)
    return pages.page(rows, limit, of=to_key, key=lambda row: (row["created_at"], row["id"]))


@post("/api/keys", guards=[requires(Action.KEYS_WRITE)], status_code=201)
async def make_key(data: JSONBody[NewKey], door: Database, principal: Caller) -> MadeKey:
    """A new API key, shown once. It may do no more than its maker."""
    async with door.write() as connection:
        about, whole = await people.make_key(connection, principal, data.name, data.scopes, data.expires_at)
    return MadeKey(whole, about)


@delete("/api/keys/{key_id:uuid}", guards=[requires(Action.KEYS_WRITE)], status_code=204)
async def revoke_key(key_id: FromPath[UUID], door: Database, principal: Caller) -> None:
    """Withdraw an API key; in force within seconds."""
    async with door.write() as connection:
        await people.revoke_key(connection, principal, key_id)


@get("/api/audit", guards=[requires(Action.AUDIT_READ)])
async def list_audit(
    door: Database,
    limit: Limit = 50,
    cursor: Cursor = None,
    action: FromQuery[str | None] = None,
    actor: FromQuery[str | None] = None,
) -> Page[Entry]:
    """Who did what in the tenant, newest first."""
    before = pages.decode(cursor, int)
    async with door.read() as connection:
        rows = await audit.entries(connection, limit=limit + 1, before=before, action=action, actor=actor)
    return pages.page(rows, limit, of=lambda row: Entry(**row), key=lambda row: row["id"])


ROUTES = [
    list_people, get_person, change_role, remove_person, list_invitations, invite, withdraw_invitation,
    list_keys, make_key, revoke_key, list_audit,
]  # fmt: skip
