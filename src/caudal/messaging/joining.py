"""Conversations that people outside began: who takes them up, so that what waits there goes out.

Somebody who writes to a tenant's number out of the blue begins a conversation in which nobody else is. Until
somebody takes part it belongs to nobody of the tenant, and whoever may join sees it listed; afterwards it is
its participants' alone, as any other.
"""

from __future__ import annotations

import asyncpg
import msgspec

from caudal.core.errors import Conflict, NotFound
from caudal.core.eventlog.port import Connection, Outgoing
from caudal.messaging import topics
from caudal.messaging.records import milliseconds
from caudal.messaging.views import Conversation

# Nobody is in it but who began it: the address, or the person who has linked it.
ALONE = """
not exists (select from caudal.participant p where p.conversation_id = c.id and p.who <> c.name
  and not exists (select from caudal.identity i where i.tenant_id = c.tenant_id
                  and i.platform || ':' || i.value = c.name and i.user_id = p.who))
"""
# By way of what waits, of which there is an index; a conversation in which nobody waits needs nobody.
UNCLAIMED = f"""
select c.id, c.name, c.message_count, c.last_message_at from caudal.conversation c
where c.id in (select m.conversation_id from caudal.message m where m.waiting) and c.inbound and {ALONE}
  and ($1::bigint is null or c.id < $1)
order by c.id desc limit $2
"""
FIND = f"""
select c.id, c.name, c.message_count, c.last_message_at, c.inbound, {ALONE} as alone, t.name as tenant,
       caudal.is_participant(c.id, $2) as mine
from caudal.conversation c join caudal.tenant t on t.id = c.tenant_id
where c.name = $1
"""
JOIN = """
insert into caudal.participant(tenant_id, conversation_id, who)
values (caudal.current_tenant(), $1, $2) on conflict do nothing
"""


def view(row: asyncpg.Record) -> Conversation:
    """A conversation from a row of these queries."""
    last = row["last_message_at"]
    return Conversation(
        row["name"], row["name"], row["message_count"], None if last is None else milliseconds(last)
    )


async def unclaimed(connection: Connection, before: int | None, limit: int) -> list[asyncpg.Record]:
    """Conversations that wait for somebody, the latest begun first, below number `before`."""
    rows: list[asyncpg.Record] = await connection.fetch(UNCLAIMED, before, limit)
    return rows


async def join(connection: Connection, name: str, who: str) -> tuple[Conversation, list[Outgoing]]:
    """Have `who` take part in a conversation that somebody outside began; and what to publish then.

    Raises NotFound where there is none, or one that began otherwise; Conflict when somebody else has it.
    """
    # Whoever comes second finds the first.
    await connection.execute("select from caudal.conversation where name = $1 and inbound for update", name)
    row = await connection.fetchrow(FIND, name, who)
    if row is not None and row["mine"]:
        return view(row), []
    if row is None or not row["inbound"]:
        raise NotFound("There is no such conversation that waits for somebody.")
    if not row["alone"]:
        raise Conflict("Somebody has joined that conversation already.")
    await connection.execute(JOIN, row["id"], who)
    record = topics.JoinRecord(
        conversation_id=name, tenant=row["tenant"], event_type=topics.PARTICIPANT_JOINED
    )
    return view(row), [Outgoing(topics.MESSAGES, name, msgspec.json.encode(record))]
