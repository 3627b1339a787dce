"""Reading: a person's conversations, their messages, and marking one as read.

Every function takes a connection in a transaction of the caller's tenant, and who asks.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from caudal.core.errors import Conflict, Forbidden, NotFound
from caudal.core.eventlog.port import Connection
from caudal.messaging import topics
from caudal.messaging.records import milliseconds
from caudal.messaging.views import Conversation, DeliveryView, Message

NO_PART = "You take no part in that conversation."


LIST = """
with mine as (
  select p.conversation_id from caudal.participant p where p.who = $1
  union
  select p.conversation_id from caudal.group_member g join caudal.participant p
    on p.tenant_id = g.tenant_id and p.who = g.group_id where g.who = $1
)
select c.name as conversation_id, c.message_count, c.last_message_at,
       coalesce((select min(g.name) from caudal.participant p join caudal.people_group g on g.id = p.who
                 where p.conversation_id = c.id), c.name) as name
from mine join caudal.conversation c on c.id = mine.conversation_id
order by c.last_message_at desc nulls last, c.id desc
"""

FIND = """
select c.id, caudal.is_participant(c.id, $2) as mine from caudal.conversation c where c.name = $1
"""

HISTORY = """
select m.id, c.name as conversation_id, m.sender, m.recipient, m.content, m.status, m.reason, m.sent_at,
       m.delivered_at, m.read_at, m.file_id, f.filename, f.size_bytes, f.checksum, f.content_type,
       d.state = 'sent' as fresh
from caudal.message m join caudal.conversation c on c.id = m.conversation_id
left join caudal.file f on f.id = m.file_id
left join caudal.delivery d on d.message_id = m.id and d.channel = 'app' and d.address = $2
where m.conversation_id = $1
"""

READ = """
select m.id, m.status, m.sender, caudal.is_participant(m.conversation_id, $2) as mine, d.id as delivery,
       d.read_at
from caudal.message m
left join caudal.delivery d on d.message_id = m.id and d.channel = 'app' and d.address = $2
where m.id = $1
"""

DELIVERIES = """
select d.id as delivery_id, d.message_id, d.channel, d.address, d.state, d.attempt, d.reason_code, d.reason,
       d.sent_at, d.delivered_at, d.read_at, d.failed_at,
       nullif(d.next_attempt_at, 'infinity') as next_attempt_at
from caudal.delivery d
"""


def _ms(at: datetime | None) -> int | None:
    return None if at is None else milliseconds(at)


async def list_for(connection: Connection, who: str) -> list[Conversation]:
    """The conversations that `who` takes part in, the latest first."""
    rows = await connection.fetch(LIST, who)
    return [
        Conversation(row["conversation_id"], row["name"], row["message_count"], _ms(row["last_message_at"]))
        for row in rows
    ]


async def find(connection: Connection, name: str, who: str) -> int:
    """The number of a conversation that `who` takes part in. Raises Forbidden, also when there is none."""
    row = await connection.fetchrow(FIND, name, who)
    if row is None or not row["mine"]:
        # Whether it exists is nobody else's business.
        raise Forbidden(NO_PART)
    number: int = row["id"]
    return number


async def history(
    connection: Connection, name: str, who: str, limit: int, offset: int, *, newest_first: bool = False
) -> tuple[list[Message], list[UUID]]:
    """Messages of a conversation in order, `limit` of them after the first `offset`. Raises Forbidden.

    And which of them the caller is shown for the first time.
    Places are dense, so a page is a range of the index whatever its offset.
    """
    conversation = await find(connection, name, who)
    if newest_first:
        count = await connection.fetchval(
            "select message_count from caudal.conversation where id = $1", conversation
        )
        where, bounds = "m.place > $3 and m.place <= $4 order by m.place desc", (
            max(0, count - offset - limit), max(0, count - offset)
        )  # fmt: skip
    else:
        where, bounds = "m.place > $3 and m.place <= $4 order by m.place", (offset, offset + limit)
    rows = await connection.fetch(f"{HISTORY} and {where}", conversation, who, *bounds)
    return [_message(row) for row in rows], [row["id"] for row in rows if row["fresh"]]


def _message(row: asyncpg.Record) -> Message:
    file_id = None if row["file_id"] is None else str(row["file_id"])
    return Message(
        message_id=str(row["id"]),
        conversation_id=row["conversation_id"],
        sender_id=row["sender"],
        recipient_id=row["recipient"],
        content=row["content"],
        status=row["status"],
        timestamp=milliseconds(row["sent_at"]),
        reason=row["reason"],
        delivered_at=_ms(row["delivered_at"]),
        read_at=_ms(row["read_at"]),
        file_id=file_id,
        file_metadata=topics.file_metadata(row),
        file_download_url=None if file_id is None else f"/v1/files/{file_id}/download",
    )


async def unread(connection: Connection, message_id: UUID, who: str) -> tuple[int, datetime | None]:
    """The caller's delivery of a message, and when they read it. Raises NotFound, Forbidden, Conflict."""
    row = await connection.fetchrow(READ, message_id, who)
    if row is None:
        raise NotFound("There is no such message.")
    if not row["mine"] or row["sender"] == who:
        raise Forbidden("Only who received a message can mark it as read.")
    if row["delivery"] is None:
        raise Conflict("The message has not been delivered to you.")
    return row["delivery"], row["read_at"]


async def deliveries_of(connection: Connection, message_id: UUID, who: str) -> list[DeliveryView]:
    """What became of a message on each channel, for those in its conversation. Raises NotFound, Forbidden."""
    row = await connection.fetchrow(READ, message_id, who)
    if row is None:
        raise NotFound("There is no such message.")
    if not row["mine"]:
        raise Forbidden(NO_PART)
    rows = await connection.fetch(f"{DELIVERIES} where d.message_id = $1 order by d.id", message_id)
    return [view(row) for row in rows]


async def deliveries_page(
    connection: Connection, state: str | None, before: int | None, limit: int
) -> list[DeliveryView]:
    """Deliveries of the tenant to channels outside, the latest first, below number `before`."""
    rows = await connection.fetch(
        f"{DELIVERIES} where d.channel <> 'app' and ($1::text is null or d.state = $1)"
        " and ($2::bigint is null or d.id < $2) order by d.id desc limit $3",
        state, before, limit,
    )  # fmt: skip
    return [view(row) for row in rows]


def view(row: asyncpg.Record) -> DeliveryView:
    """A delivery from a row of `DELIVERIES`."""
    times = ("sent_at", "delivered_at", "read_at", "failed_at", "next_attempt_at")
    values: dict[str, Any] = {**dict(row), "message_id": str(row["message_id"])}
    return DeliveryView(**{**values, **{name: _ms(row[name]) for name in times}})
