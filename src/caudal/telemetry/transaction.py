"""What a batch's transaction holds: samples, and all that is stored and counted with them.

The short road is one message to the server (`store_at_once`): it counts, and takes the rows by COPY, in a
transaction of its own. The longer one (`fill`) is for what is not samples alone, for what is late, and for
rows that are there already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec

from caudal.telemetry import statements as sql
from caudal.telemetry.batch import Dead, Entry, Tally
from caudal.telemetry.invalidation import Edge, Hours, Marks, add_late, add_packed, invalidate
from caudal.telemetry.others import instant, store_others
from caudal.telemetry.rows import COLUMNS, HEADER, PACKED_SIZE, TRAILER

LATE = "CA001"
"""SQLSTATE of `caudal.count_batch`: the batch has late samples, and nothing of it was stored."""


class Mark(msgspec.Struct, frozen=True):
    """What a transaction is known by in the ledger: its writer, and a random number of its own."""

    writer: str
    batch: int


async def store_at_once(
    connection: asyncpg.Connection[Any], entries: Sequence[Entry], mark: Mark
) -> dict[int, Tally]:
    """Store `entries`, which are samples alone, and commit, in one round trip; returns the sums.

    The server takes the statements of one simple query for one transaction, and the rows are sent without
    waiting to be asked for. Raises PostgresError when nothing was stored (`LATE` among its SQLSTATEs); after
    any other error it may have been.
    """
    tallies = tally_simple(entries)
    ordered = sorted(tallies.items())
    received = [entry.message.received for entry in entries]
    statement = sql.COUNT_AND_COPY.format(
        writer=mark.writer.replace("'", "''"),
        tenants=_array([tenant for tenant, _ in ordered]),
        messages=_array([tally.messages for _, tally in ordered]),
        parts=_array([tally.stored for _, tally in ordered]),
        first=instant(min(received)).isoformat(),
        last=instant(max(received)).isoformat(),
        batch=mark.batch,
        oldest=min([entry.oldest for entry in entries]),
        columns=", ".join(COLUMNS),
    )
    # By series, which is what a row begins with: the index's pages are then met one after the other, and what
    # one series had to say lies together.
    rows = b"".join((HEADER, *sorted([entry.rows for entry in entries]), TRAILER))
    # What is public of the client library makes the statement itself, and so would begin, count and commit
    # in three more round trips.
    client: Any = connection
    await client._copy_in(statement, memoryview(rows), None)
    return tallies


def _array(numbers: list[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


class Filled(msgspec.Struct, frozen=True):
    """What a transaction holds that is ready to be committed."""

    tallies: dict[int, Tally]
    number: str
    """The transaction's, by which it is found out whether it is over."""
    edge: Edge
    """By what its samples are late."""
    marked: Hours
    """The hours that it marks for the rollups."""


async def fill(
    connection: asyncpg.Connection[Any],
    entries: Sequence[Entry],
    mark: Mark,
    marks: Marks,
    *,
    careful: bool,
) -> Filled:
    """Everything of the transaction but its beginning and its end. `marks` are the connection's."""
    rows = [entry.rows for entry in entries if entry.count]
    if not careful:
        if rows:
            await _copy(connection, sorted(rows), "sample", "caudal")  # by series, as above
        if all(entry.simple for entry in entries):
            tallies = tally_simple(entries)
        else:
            stored = [entry.count for entry in entries]
            tallies = await _finish(connection, entries, stored, {})
    else:
        await _copy(connection, rows, "incoming", None)
        stored, conflicts = await _sort_out(connection, entries)
        tallies = await _finish(connection, entries, stored, conflicts)
    number, edge = await _write_ledger(connection, entries, tallies, mark)
    marked = marks.missing(edge.epoch, _late_hours(entries, edge))
    await invalidate(connection, marked)
    return Filled(tallies, number, edge, marked)


def _late_hours(entries: Sequence[Entry], edge: Edge) -> Hours:
    """The finished hours that these entries add to."""
    late: Hours = {}
    for entry in entries:
        if entry.count and entry.oldest < edge.threshold:
            if entry.simple and len(entry.rows) == entry.count * PACKED_SIZE:
                add_packed(late, entry.rows, entry.count, entry.oldest)
            else:
                add_late(late, entry.rows, entry.count, edge.threshold)
    return late


async def _finish(
    connection: asyncpg.Connection[Any],
    entries: Sequence[Entry],
    stored: list[int],
    conflicts: dict[int, list[Dead]],
) -> dict[int, Tally]:
    """Store what is not samples, and count what each message came to."""
    for index, entry in enumerate(entries):
        # Told afresh on every attempt: an earlier one may have been rolled back.
        tally = Tally(messages=int(entry.whole), received=entry.items, stored=stored[index])
        tally.dead = len(conflicts.get(index, ()))
        tally.duplicates = entry.count - stored[index] - tally.dead
        entry.outcome = tally
    if conflicts or not all(entry.plain for entry in entries):
        await store_others(connection, entries, conflicts)
    tallies: dict[int, Tally] = {}
    for entry in entries:
        for device, metadata in entry.metadata or ():
            await connection.execute(sql.METADATA, device, metadata.decode())
        tally = entry.outcome or Tally()
        tally.empty = entry.items - tally.stored - tally.duplicates - tally.dead - tally.held
        tallies.setdefault(entry.tenant_id, Tally()).add(tally)
    return tallies


async def _copy(
    connection: asyncpg.Connection[Any], rows: list[bytes], table: str, schema: str | None
) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"".join((HEADER, *rows, TRAILER))

    await connection.copy_to_table(
        table, source=source(), schema_name=schema, columns=COLUMNS, format="binary"
    )


async def _sort_out(
    connection: asyncpg.Connection[Any], entries: Sequence[Entry]
) -> tuple[list[int], dict[int, list[Dead]]]:
    """Store what is new of `incoming`; returns rows stored and conflicts for each entry."""
    await connection.execute(sql.INSERT_NEW)
    stored = [entry.count for entry in entries]
    conflicts: dict[int, list[Dead]] = {}
    owner = [index for index, entry in enumerate(entries) for _ in range(entry.count)]
    rows = await connection.fetch(sql.NOT_STORED)
    if not rows:
        return stored, conflicts
    first = await connection.fetchval("select min(ord) from incoming")
    for row in rows:
        index = owner[row["ord"] - first]
        stored[index] -= 1
        if not row["same"]:
            sentence = (
                f"{row['point']} at {row['ts'].isoformat()} is stored as {row['kept']!s:.80}; "
                f"{row['refused']!s:.80} contradicts it"
            )
            conflicts.setdefault(index, []).append(Dead("conflict", sentence, format=entries[index].format))
    return stored, conflicts


async def _write_ledger(
    connection: asyncpg.Connection[Any], entries: Sequence[Entry], tallies: dict[int, Tally], mark: Mark
) -> tuple[str, Edge]:
    """Count; returns the transaction's number, and what its samples are late by."""
    ordered = sorted(tallies.items())
    received = [entry.message.received for entry in entries]
    rows = await connection.fetch(
        sql.LEDGER,
        mark.writer,
        instant(min(received)),
        instant(max(received)),
        [tenant for tenant, _ in ordered],
        *(
            [getattr(tally, name) for _, tally in ordered]
            for name in ("messages", "received", "stored", "duplicates", "dead", "held", "empty")
        ),
        mark.batch,
    )
    return rows[0]["number"], Edge(*rows[0]["edge"])


def tally_simple(entries: Sequence[Entry]) -> dict[int, Tally]:
    """The sums of messages that were samples alone, all stored."""
    tallies: dict[int, Tally] = {}
    for tenant, run in groupby(entries, attrgetter("tenant_id")):
        counts = [entry.count for entry in run]
        points = sum(counts)
        tally = tallies.setdefault(tenant, Tally())
        tally.messages += len(counts)
        tally.received += points
        tally.stored += points
    return tallies
