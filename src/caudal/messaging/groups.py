"""Groups of people: a group is a recipient, and its members of the moment take part in its conversations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from caudal.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from caudal.core.eventlog.port import Connection, Outgoing
from caudal.messaging import topics

MEMBERS_MAX = 256


class NewGroup(msgspec.Struct, frozen=True):
    """A group just made; `members` is their number."""

    group_id: str
    name: str
    description: str | None
    members: int
    created_at: datetime


class Group(msgspec.Struct, frozen=True):
    """A group as its members see it."""

    group_id: str
    name: str
    description: str | None
    members: list[str]
    admins: list[str]
    max_members: int
    created_by: str
    created_at: datetime


NO_SUCH = "There is no such group."

PEOPLE = """
select m.person_id::text as id from caudal.membership m where m.person_id = any($1::uuid[])
  and m.tenant_id = (select caudal.current_tenant())
"""

JOINED = """
select c.name as conversation, t.name as tenant from caudal.participant p
join caudal.conversation c on c.id = p.conversation_id join caudal.tenant t on t.id = p.tenant_id
where p.who = $1 and exists (select from caudal.message m where m.conversation_id = c.id and m.waiting)
"""


async def create(
    connection: Connection, who: str, name: str, description: str | None, members: Sequence[UUID]
) -> NewGroup:
    """Make a group of `who`, its creator and first admin, and `members`. Raises InvalidInput."""
    others = sorted({str(member) for member in members} - {who})
    if len(others) + 1 > MEMBERS_MAX:
        raise InvalidInput(f"A group has at most {MEMBERS_MAX} members.")
    known = {row["id"] for row in await connection.fetch(PEOPLE, [UUID(other) for other in others])}
    if missing := [other for other in others if other not in known]:
        raise InvalidInput(f"There is no user {missing[0]} here.")
    group_id = f"group_{uuid4()}"
    created_at = await connection.fetchval(
        "insert into caudal.people_group(id, tenant_id, name, description, created_by)"
        " values ($1, caudal.current_tenant(), $2, $3, $4) returning created_at",
        group_id, name, description, who,
    )  # fmt: skip
    await connection.execute(
        "insert into caudal.group_member(tenant_id, group_id, who, is_admin)"
        " select caudal.current_tenant(), $1, w, w = $3 from unnest($2::text[]) w",
        group_id, [who, *others], who,
    )  # fmt: skip
    return NewGroup(group_id, name, description, len(others) + 1, created_at)


async def read(connection: Connection, group_id: str, who: str) -> Group:
    """A group, for its members. Raises NotFound, Forbidden."""
    group = await connection.fetchrow("select * from caudal.people_group where id = $1", group_id)
    if group is None:
        raise NotFound(NO_SUCH)
    rows = await connection.fetch(
        "select who, is_admin from caudal.group_member where group_id = $1 order by joined_at, who", group_id
    )
    if who not in {row["who"] for row in rows}:
        raise Forbidden("You are not a member of that group.")
    return Group(
        group_id, group["name"], group["description"], [row["who"] for row in rows],
        [row["who"] for row in rows if row["is_admin"]], MEMBERS_MAX, group["created_by"],
        group["created_at"],
    )  # fmt: skip


async def _locked(connection: Connection, group_id: str, who: str) -> str:
    """Lock a group for a change by `who`, an admin of it; its creator. Raises NotFound, Forbidden."""
    creator: str | None = await connection.fetchval(
        "select created_by from caudal.people_group where id = $1 for update", group_id
    )
    if creator is None:
        raise NotFound(NO_SUCH)
    admin = await connection.fetchval(
        "select is_admin from caudal.group_member where group_id = $1 and who = $2", group_id, who
    )
    if not admin:
        raise Forbidden("Only an admin of the group may do that.")
    return creator


async def add_member(connection: Connection, group_id: str, who: str, user: UUID) -> list[Outgoing]:
    """Make `user` a member. Raises NotFound (group or user), Forbidden, Conflict (member already, or full).

    Returns what to publish: conversations of the group in which something waits for somebody to read it.
    """
    await _locked(connection, group_id, who)
    if not await connection.fetch(PEOPLE, [user]):
        raise NotFound("There is no such user.")
    count = await connection.fetchval(
        "select count(*) from caudal.group_member where group_id = $1", group_id
    )
    added = await connection.fetchval(
        "insert into caudal.group_member(tenant_id, group_id, who) values (caudal.current_tenant(), $1, $2)"
        " on conflict do nothing returning who",
        group_id, str(user),
    )  # fmt: skip
    if added is None:
        raise Conflict("They are a member already.")
    if count >= MEMBERS_MAX:
        raise Conflict(f"A group has at most {MEMBERS_MAX} members.")
    rows = await connection.fetch(JOINED, group_id)
    return [
        Outgoing(
            topics.MESSAGES,
            row["conversation"],
            msgspec.json.encode(
                topics.JoinRecord(
                    conversation_id=row["conversation"],
                    tenant=row["tenant"],
                    event_type=topics.PARTICIPANT_JOINED,
                )
            ),
        )
        for row in rows
    ]


async def remove_member(connection: Connection, group_id: str, who: str, user: UUID) -> None:
    """End a membership. Raises NotFound, Forbidden (not an admin, or the creator is meant)."""
    creator = await _locked(connection, group_id, who)
    if str(user) == creator:
        raise Forbidden("The creator of a group cannot be removed.")
    gone = await connection.fetchval(
        "delete from caudal.group_member where group_id = $1 and who = $2 returning who", group_id, str(user)
    )
    if gone is None:
        raise NotFound("They are not a member.")


async def make_admin(connection: Connection, group_id: str, who: str, user: UUID) -> None:
    """Make a member an admin. Raises NotFound, Forbidden, Conflict (admin already)."""
    await _locked(connection, group_id, who)
    was = await connection.fetchval(
        "select is_admin from caudal.group_member where group_id = $1 and who = $2", group_id, str(user)
    )
    if was is None:
        raise NotFound("They are not a member.")
    if was:
        raise Conflict("They are an admin already.")
    await connection.execute(
        "update caudal.group_member set is_admin = true where group_id = $1 and who = $2", group_id, str(user)
    )
