"""Records that can never be processed: kept where telemetry's dead letters are, seen with the same tool."""

from __future__ import annotations

import hashlib
from typing import Any

import asyncpg
import msgspec

from caudal.core.eventlog.port import Connection, EventLog, Outgoing, Poison, Record

PREFIX = "log:"

INSERT = """
insert into caudal.dead_letter(tenant_id, tenant_name, topic, payload, reason, sentence, pointer, format,
                               received, digest)
select (select id from caudal.tenant where name = $1), $1, $2, $3, $4, $5, $6, 'log', now(), $7
where not exists (select from caudal.dead_letter where digest = $7 and topic = $2 and pointer = $6)
"""

OPEN = """
select topic, payload, pointer from caudal.dead_letter
where id = $1 and status = 'open' and topic like 'log:%' for update
"""


SETTLE = """
update caudal.dead_letter set status = 'replayed', settled_at = now(), settled_by = $2 where id = $1
"""


class _Envelope(msgspec.Struct):
    tenant: str | None = None


def _tenant(value: bytes) -> str | None:
    try:
        return msgspec.json.decode(value, type=_Envelope).tenant
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def bury(connection: Connection | asyncpg.Pool[Any], record: Record, error: BaseException) -> None:
    """Keep `record` with the reason why it could not be processed. Once, however often it is delivered."""
    if isinstance(error, Poison):
        reason, sentence, tenant = error.reason, error.sentence, error.tenant
    else:
        reason, sentence, tenant = "handler_failed", f"{type(error).__name__}: {error}"[:500], None
    pointer = msgspec.json.encode(
        {"key": record.key, "partition": record.partition, "offset": record.offset}
    ).decode()
    digest = hashlib.sha256(record.topic.encode() + b"\0" + record.value).digest()
    # PostgreSQL text has no NUL.
    await connection.execute(
        INSERT, (tenant or _tenant(record.value) or "").replace("\0", "") or None, PREFIX + record.topic,
        record.value, reason, sentence.replace("\0", "\\0"), pointer.replace("\0", ""), digest,
    )  # fmt: skip


async def replay(log: EventLog, connection: Connection, number: int, by: str) -> bool:
    """Put dead letter `number` back on its topic under its key; false when it is not an open one of the log.

    Within the caller's transaction; call `log.announce` after the commit.
    """
    row = await connection.fetchrow(OPEN, number)
    if row is None:
        return False
    key = msgspec.json.decode(row["pointer"])["key"]
    await connection.execute(SETTLE, number, by)
    await log.publish([Outgoing(row["topic"].removeprefix(PREFIX), key, row["payload"])], connection)
    return True
