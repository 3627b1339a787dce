"""Records that can never be processed: kept where telemetry's dead letters are, seen with the same tool."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
import msgspec

from caudal.core.eventlog.append import CHANNEL, append
from caudal.core.eventlog.port import Connection, Outgoing, Poison, Record

PREFIX = "log:"

INSERT = """
insert into caudal.dead_letter(tenant_id, tenant_name, topic, payload, reason, sentence, pointer, format,
                               received, digest)
select (select id from caudal.tenant where name = $1), $1, $2, $3, $4, $5, $6, 'log', now(), $7
where not exists (select from caudal.dead_letter where digest = $7 and topic = $2 and pointer = $6)
"""

CHOSEN = """
select id, topic, pointer, coalesce(fixed_payload, payload) as payload from caudal.dead_letter
where id = any($1::bigint[]) and status = 'open' and format = 'log' and ($2::text is null or tenant_name = $2)
order by id for update
"""
KNOWN = "select name from caudal.log_topic where name = any($1)"
SETTLE = """
update caudal.dead_letter set status = 'replayed', settled_at = now(), settled_by = $2
where id = any($1::bigint[])
"""


class _Envelope(msgspec.Struct):
    tenant: str | None = None


class _Place(msgspec.Struct):
    key: str


def _tenant(value: bytes) -> str | None:
    try:
        return msgspec.json.decode(value, type=_Envelope).tenant
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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


class PutBack(NamedTuple):
    """What became of one letter: back on its topic, or why not, and then it stays open."""

    id: int
    problem: str | None


async def replay(
    connection: Connection, numbers: Sequence[int], *, by: str, tenant: str | None = None
) -> list[PutBack]:
    """Put records back at the end of their topics under their keys, the oldest first, as corrected.

    Numbers that are no open letters of the log (of `tenant`, where given) are left out of the answer. What is
    poison still becomes a letter of its own again. Within the caller's transaction; consumers are woken by
    its commit. With either log: publishing writes to PostgreSQL, from where the relay takes it to Kafka.
    """
    rows = await connection.fetch(CHOSEN, sorted(set(numbers)), tenant)
    names = {row["topic"].removeprefix(PREFIX) for row in rows}
    known = {row["name"] for row in await connection.fetch(KNOWN, list(names))}
    done: list[PutBack] = []
    out: list[Outgoing] = []
    for row in rows:
        topic = row["topic"].removeprefix(PREFIX)
        try:
            key = msgspec.json.decode(row["pointer"], type=_Place).key
        except msgspec.MsgspecError:
            key = None
        if key is None or topic not in known:
            done.append(PutBack(row["id"], f"The log has no topic {topic}, or the letter names no key."))
            continue
        out.append(Outgoing(topic, key, row["payload"]))
        done.append(PutBack(row["id"], None))
    await append(connection, out)
    await connection.execute(SETTLE, [one.id for one in done if one.problem is None], by)
    for topic in sorted({record.topic for record in out}):
        await connection.execute("select pg_notify($1, $2)", CHANNEL, topic)
    return done
