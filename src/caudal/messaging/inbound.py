"""What a person writes to us on a channel becomes a message of a conversation.

Of the conversation in which that person was last written to on that channel; else of one in which the address
takes part; else of a new one, named by the address, where it waits for who joins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from caudal.core.eventlog.port import Connection, EventLog, Outgoing
from caudal.messaging import topics
from caudal.messaging.ids import new_id
from caudal.messaging.records import milliseconds


class Inbound(NamedTuple):
    """A message that a provider handed us. `event_id` is the provider's id of it, never used twice.

    `reply_to` is the provider's id of the message of ours that it answers, where the provider says so.
    """

    tenant_id: int
    channel: str
    address: str
    event_id: str
    content: str
    at: datetime
    file_id: UUID | None = None
    reply_to: str | None = None


# A person is known by the identity they linked; then what they write is theirs, and the link is proven.
WHO = """
update caudal.identity set verified = true
where tenant_id = $1 and platform = $2 and value = $3 returning user_id
"""

CONVERSATION = """
select coalesce(
  (select d.conversation_id from caudal.provider_reference r join caudal.delivery d on d.id = r.delivery_id
   where r.tenant_id = $1 and r.channel = $2 and r.provider_id = $4),
  (select d.conversation_id from caudal.delivery d
   where d.tenant_id = $1 and d.channel = $2 and d.address = $3 order by d.id desc limit 1),
  (select p.conversation_id from caudal.participant p
   where p.tenant_id = $1 and p.who = $2 || ':' || $3
   order by p.conversation_id desc limit 1))
"""

BEGIN = """
insert into caudal.conversation(tenant_id, name, inbound) values ($1, $2, true)
on conflict (tenant_id, name) do update set name = excluded.name returning id
"""

JOIN = """
insert into caudal.participant(tenant_id, conversation_id, who) values ($1, $2, $3) on conflict do nothing
"""

# Found by its key however late the provider repeats it.
STORE = """
with place as (
  update caudal.conversation set message_count = message_count + 1, last_message_at = now()
  where id = $2 and not exists (
    select from caudal.message where tenant_id = $1 and sender = $4 and idempotency_key = $7)
  returning name, message_count
), stored as (
  insert into caudal.message(id, tenant_id, conversation_id, place, sender, content, file_id,
                             idempotency_key, sent_at)
  select $3, $1, $2, message_count, $4, $5, $6, $7, $8 from place
  on conflict do nothing returning id
)
select p.name, t.name as tenant, f.filename, f.size_bytes, f.checksum, f.content_type
from stored s cross join place p join caudal.tenant t on t.id = $1 left join caudal.file f on f.id = $6
"""


async def receive(
    connection: Connection, log: EventLog, messages: Sequence[Inbound]
) -> tuple[list[UUID | None], Callable[[], None]]:
    """Store inbound messages in the caller's transaction and hand them to the router.

    Returns for each its message id, None for one that was stored before; and what to call after the commit.
    Call this last in the transaction, and again when PostgreSQL breaks a deadlock: conversations and the log
    stay locked until its commit.
    """
    ids: list[UUID | None] = []
    out: list[Outgoing] = []
    for message in messages:
        stored = await _store(connection, message)
        if stored is None:
            ids.append(None)
            continue
        number, record = stored
        ids.append(number)
        out.append(Outgoing(topics.MESSAGES, record.conversation_id, msgspec.json.encode(record)))
    await log.publish(out, connection)
    return ids, lambda: log.announce(topics.MESSAGES) if out else None


async def sender_of(connection: Connection, tenant_id: int, channel: str, address: str) -> str:
    """Who writes from an address: the person who linked it, or the address itself."""
    user: str | None = await connection.fetchval(WHO, tenant_id, channel, address)
    return user or f"{channel}:{address}"


async def conversation_of(
    connection: Connection, tenant_id: int, channel: str, address: str, reply_to: str | None = None
) -> int:
    """The conversation that what an address writes belongs to, begun where there is none."""
    found: int | None = await connection.fetchval(CONVERSATION, tenant_id, channel, address, reply_to)
    if found is None:
        found = await connection.fetchval(BEGIN, tenant_id, f"{channel}:{address}")
    assert found is not None
    return found


async def _store(connection: Connection, message: Inbound) -> tuple[UUID, topics.MessageRecord] | None:
    sender = await sender_of(connection, message.tenant_id, message.channel, message.address)
    conversation = await conversation_of(
        connection, message.tenant_id, message.channel, message.address, message.reply_to
    )
    await connection.execute(JOIN, message.tenant_id, conversation, sender)
    number = new_id()
    row: asyncpg.Record | None = await connection.fetchrow(
        STORE, message.tenant_id, conversation, number, sender, message.content, message.file_id,
        f"{message.channel}:{message.event_id}", message.at,
    )  # fmt: skip
    if row is None:
        return None
    return number, topics.MessageRecord(
        message_id=str(number),
        conversation_id=row["name"],
        sender_id=sender,
        content=message.content,
        timestamp=milliseconds(message.at),
        event_type=topics.MESSAGE_SENT,
        file_id=None if message.file_id is None else str(message.file_id),
        file_metadata=topics.file_metadata(row),
        tenant=row["tenant"],
    )
