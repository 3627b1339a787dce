"""What of a batch is not samples: dead letters, held messages, acks, events; in the batch's transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from caudal.telemetry import statements as sql
from caudal.telemetry.batch import Dead, Entry, Tally

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> datetime:
    """Microseconds since 1970 as a datetime."""
    return EPOCH + timedelta(microseconds=microseconds)


def digest(topic: str, payload: bytes) -> bytes:
    """What a redelivered message has in common with its first copy."""
    return hashlib.blake2b(topic.encode(errors="surrogatepass") + b"\0" + payload, digest_size=16).digest()


async def store_others(
    connection: asyncpg.Connection[Any], entries: Sequence[Entry], conflicts: dict[int, list[Dead]]
) -> None:
    """Dead letters, held messages, acks and events."""
    marks = {
        index: digest(entry.message.topic, entry.message.payload)
        for index, entry in enumerate(entries)
        if entry.dead or entry.held_for or index in conflicts
    }
    known = await _known_digests(connection, entries, marks) if marks else set()
    dead: list[tuple[Any, ...]] = []
    held: list[tuple[Any, ...]] = []
    for index, entry in enumerate(entries):
        letters = entry.letters = [*(entry.dead or ()), *conflicts.get(index, ())]
        tally = entry.outcome or Tally()
        message = entry.message
        if letters or entry.held_for:
            mark = marks[index]
            if message.dup and mark in known:
                tally.duplicates += sum(letter.items for letter in letters) + entry.held_items
                tally.dead -= len(conflicts.get(index, ()))
            else:
                known.add(mark)
                tally.dead += sum(letter.items for letter in entry.dead or ())
                dead.extend(_letter(entry, letter, mark) for letter in letters)
                tally.held += entry.held_items
                held.extend(
                    (
                        entry.tenant_id,
                        name,
                        message.topic,
                        message.payload,
                        instant(message.received),
                        mark,
                        items,
                    )
                    for name, items in (entry.held_for or {}).items()
                )
        if entry.ack:
            await _store_ack(connection, entry, tally)
        if entry.event:
            await _store_event(connection, entry, tally)
    if dead:
        await connection.execute(sql.DEAD, *map(list, zip(*dead, strict=True)))
    if held:
        await connection.execute(sql.HELD, *map(list, zip(*held, strict=True)))


async def _known_digests(
    connection: asyncpg.Connection[Any], entries: Sequence[Entry], marks: dict[int, bytes]
) -> set[bytes]:
    """Which redelivered messages have left a dead letter, or are held, already."""
    again = {mark for index, mark in marks.items() if entries[index].message.dup}
    buckets = {mark[0] & 63: False for mark in marks.values()} | {mark[0] & 63: True for mark in again}
    await connection.execute(sql.COPIES, list(buckets), list(buckets.values()))
    if not again:
        return set()
    rows = await connection.fetch(
        "select digest from caudal.dead_letter where digest = any($1)"
        " union select digest from caudal.held_message where digest = any($1)",
        list(again),
    )
    return {row["digest"] for row in rows}


async def _store_ack(connection: asyncpg.Connection[Any], entry: Entry, tally: Tally) -> None:
    if entry.ack is None:
        return
    device, ack = entry.ack
    at = instant(ack.ts_exec) if ack.ts_exec is not None else None
    new = await connection.fetchval(
        sql.ACK, entry.tenant_id, device, ack.cmd_id, ack.ok, at, ack.payload.decode()
    )
    tally.stored += bool(new)
    tally.duplicates += not new


async def _store_event(connection: asyncpg.Connection[Any], entry: Entry, tally: Tally) -> None:
    if entry.event is None:
        return
    device, event = entry.event
    # Without an id of its own an event is known by what it says: a redelivery then stays one event.
    mark = event.event_id or "~" + digest(entry.message.topic, entry.message.payload).hex()
    new = await connection.fetchval(
        sql.EVENT, entry.tenant_id, device, mark, event.event_type, instant(event.ts),
        instant(entry.message.received), event.data.decode() if event.data is not None else None,
    )  # fmt: skip
    tally.stored += new is not None
    tally.duplicates += new is None


def _letter(entry: Entry, letter: Dead, mark: bytes) -> tuple[Any, ...]:
    message = entry.message
    return (
        entry.tenant_id, entry.tenant_name, entry.device_name, _storable(message.topic), message.payload,
        letter.reason, _storable(letter.sentence), _storable(letter.pointer), letter.format or None,
        instant(message.received), mark, letter.items,
    )  # fmt: skip


def _storable(text: str) -> str:
    """A text that PostgreSQL takes: a NUL or half a surrogate pair must not cost us the dead letter."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()
