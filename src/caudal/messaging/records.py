"""What goes out of the tables: records for the log, notifications of senders, times as clients have them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from caudal.core.eventlog.port import Connection, Outgoing
from caudal.messaging import delivery_sql as sql
from caudal.messaging import topics
from caudal.messaging.lattice import STATUS, State
from caudal.messaging.notify import Note


def milliseconds(at: datetime) -> int:
    """Unix milliseconds."""
    return round(at.timestamp() * 1000)


def is_person(who: str) -> bool:
    """Whether a party is a user of ours (and not an address, a group or an API key)."""
    return len(who) == 36 and ":" not in who and not who.startswith("group_")


def status_note(row: asyncpg.Record) -> Note:
    payload = {
        "type": "status_update",
        "message_id": str(row["message_id"]),
        "conversation_id": row["conversation"],
        "status": row["status"],
        "timestamp": milliseconds(row["at"]),
    }
    if row["reason"]:
        payload["reason"] = row["reason"]
    return Note(row["tenant_id"], row["sender"], payload=payload)


def status_record(row: asyncpg.Record, tenant: str) -> Outgoing:
    record = topics.StatusRecord(
        message_id=str(row["message_id"]),
        status=STATUS[State(row["state"])],
        timestamp=milliseconds(row["at"]),
        connector=row["channel"],
        reason=row["reason"],
        tenant=tenant,
        delivery_id=row["delivery_id"],
    )
    return Outgoing(topics.STATUS_UPDATES, record.message_id, msgspec.json.encode(record))


async def tenant_names(connection: Connection, ids: set[int]) -> dict[int, str]:
    if not ids:
        return {}
    rows = await connection.fetch("select id, name from caudal.tenant where id = any($1)", list(ids))
    return {row["id"]: row["name"] for row in rows}


async def outbound_records(connection: Connection, delivery_ids: Sequence[int]) -> list[Outgoing]:
    """The outbound records of deliveries, in order of their ids; none for the inbox."""
    if not delivery_ids:
        return []
    found = []
    for row in await connection.fetch(sql.OUTBOUND, list(delivery_ids)):
        topic = topics.outbound(row["channel"])
        if topic is None:
            continue
        record = topics.OutboundRecord(
            delivery_id=row["delivery_id"], channel=row["channel"], address=row["address"],
            message_id=row["message_id"], conversation_id=row["conversation_id"], sender_id=row["sender_id"],
            recipient_id=row["recipient_id"], content=row["content"], timestamp=milliseconds(row["sent_at"]),
            event_type=topics.MESSAGE_SENT, file_id=row["file_id"], file_metadata=topics.file_metadata(row),
            tenant=row["tenant"],
        )  # fmt: skip
        found.append(Outgoing(topic, record.conversation_id, msgspec.json.encode(record)))
    return found
