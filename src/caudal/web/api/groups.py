"""Groups and identities, as the messaging contract has them."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import delete, get, post, put
from litestar.params import FromPath, JSONBody

from caudal.core.errors import Forbidden, InvalidInput
from caudal.core.eventlog.port import EventLog
from caudal.messaging import groups, identities, topics
from caudal.messaging.groups import Group, NewGroup
from caudal.messaging.identities import Identity
from caudal.registry.permissions import Action
from caudal.registry.principal import Principal
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"event_log"})
NO_NUL = re.compile(r"[^\x00]*")


class GroupRequest(msgspec.Struct, frozen=True):
    """A group to make; the caller is its creator, its first admin and a member."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00]*\S[^\x00]*$")]
    description: Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    initial_members: Annotated[list[UUID], msgspec.Meta(max_length=1000)] = []


class NewMember(msgspec.Struct, frozen=True):
    """Who is to be a member."""

    user_id: UUID


class Membership(msgspec.Struct, frozen=True):
    """What somebody is in a group now."""

    group_id: str
    user_id: str
    member: bool
    admin: bool


class NewIdentity(msgspec.Struct, frozen=True):
    """An address to link: E.164 with + for whatsapp, @ and a name for instagram."""

    platform: Annotated[str, msgspec.Meta(max_length=50)]
    value: Annotated[str, msgspec.Meta(max_length=100)]


class Identities(msgspec.Struct, frozen=True):
    """The caller's addresses."""

    identities: list[Identity]


class Unlinked(msgspec.Struct, frozen=True):
    """The address that is not the caller's any more."""

    platform: str
    value: str


def _user(principal: Principal) -> str:
    if principal.user_id is None:
        raise Forbidden("This is for people; an API key speaks for no person.")
    return str(principal.user_id)


def _text(value: str) -> str:
    """A path parameter that PostgreSQL can look for."""
    if not NO_NUL.fullmatch(value):
        raise InvalidInput("The address holds a NUL character.")
    return value


@post("/v1/groups", guards=[requires(Action.GROUPS_WRITE)])
async def create_group(data: JSONBody[GroupRequest], principal: Caller, door: Database) -> NewGroup:
    """Make a group, 256 members in all at most."""
    async with door.write() as connection:
        return await groups.create(
            connection, _user(principal), data.name, data.description, data.initial_members
        )


@get("/v1/groups/{group_id:str}", guards=[requires(Action.GROUPS_READ)])
async def read_group(group_id: FromPath[str], principal: Caller, door: Database) -> Group:
    """A group that the caller is a member of."""
    async with door.read() as connection:
        return await groups.read(connection, _text(group_id), _user(principal))


@post("/v1/groups/{group_id:str}/members", status_code=200, guards=[requires(Action.GROUPS_WRITE)])
async def add_member(
    group_id: FromPath[str],
    data: JSONBody[NewMember],
    principal: Caller,
    door: Database,
    event_log: Given[EventLog],
) -> Membership:
    """Make somebody a member; what waits in the group's conversations goes out to them."""
    async with door.write() as connection:
        waiting = await groups.add_member(connection, _text(group_id), _user(principal), data.user_id)
        await event_log.publish(waiting, connection)
    event_log.announce(topics.MESSAGES)
    return Membership(group_id, str(data.user_id), True, False)


@delete(
    "/v1/groups/{group_id:str}/members/{user_id:uuid}",
    status_code=200,
    guards=[requires(Action.GROUPS_WRITE)],
)
async def remove_member(
    group_id: FromPath[str], user_id: FromPath[UUID], principal: Caller, door: Database
) -> Membership:
    """End a membership; the creator stays."""
    async with door.write() as connection:
        await groups.remove_member(connection, _text(group_id), _user(principal), user_id)
    return Membership(group_id, str(user_id), False, False)


@put("/v1/groups/{group_id:str}/admins/{user_id:uuid}", guards=[requires(Action.GROUPS_WRITE)])
async def make_admin(
    group_id: FromPath[str], user_id: FromPath[UUID], principal: Caller, door: Database
) -> Membership:
    """Make a member an admin."""
    async with door.write() as connection:
        await groups.make_admin(connection, _text(group_id), _user(principal), user_id)
    return Membership(group_id, str(user_id), True, True)


@post("/v1/users/identities", guards=[requires(Action.IDENTITIES_WRITE)])
async def link(data: JSONBody[NewIdentity], principal: Caller, door: Database) -> Identity:
    """Link an address: from now on the caller is reached there too."""
    async with door.write() as connection:
        return await identities.link(connection, _user(principal), data.platform, data.value)


@get("/v1/users/identities", guards=[requires(Action.IDENTITIES_READ)])
async def list_identities(principal: Caller, door: Database) -> Identities:
    """The caller's addresses."""
    async with door.read() as connection:
        return Identities(await identities.list_of(connection, _user(principal)))


@delete(
    "/v1/users/identities/{platform:str}/{value:str}",
    status_code=200,
    guards=[requires(Action.IDENTITIES_WRITE)],
)
async def unlink(
    platform: FromPath[str], value: FromPath[str], principal: Caller, door: Database
) -> Unlinked:
    """Take an address away."""
    async with door.write() as connection:
        await identities.unlink(connection, _user(principal), _text(platform), _text(value))
    return Unlinked(platform, value)


ROUTES = [
    create_group,
    read_group,
    add_member,
    remove_member,
    make_admin,
    link,
    list_identities,
    unlink,
]
