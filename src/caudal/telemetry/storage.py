"""Putting a batch into the database: one transaction, after which every message of it has come to something.

The fast road is a COPY straight into the table. A batch that meets a row already there takes the slower road
through a temporary table, which tells duplicates from conflicts. A batch that the database refuses is halved
until the bad row stands alone. Nothing here gives up because the database is away: it waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

import asyncpg

from caudal.core import logs
from caudal.telemetry import statements as sql
from caudal.telemetry.batch import Batch, Dead, Entry, Tally
from caudal.telemetry.invalidation import Edge, Hours, Marks, add_late, add_packed, invalidate
from caudal.telemetry.others import EPOCH, instant, store_others
from caudal.telemetry.rows import COLUMNS, HEADER, TRAILER, split

log = logs.get("storage")

DEFECT_TRIES = 5
COLLISIONS = 20
WATCHDOG_SECONDS = 120.0
ABANDON_SECONDS = 5.0

# The server is away, going away, coming, or full: the same batch will do later.
_LATER = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalServerError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Two writers met over the same rows: again, and on the road that takes them in one order.
_COLLISION = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
)


class Writer:
    """One database connection that stores batches, one after the other.

    `name` is unique among everything that writes at the same time: the ledger's rows belong to one writer
    each, so that none waits for another.
    """

    def __init__(self, connect: Callable[[], Any], name: str, *, known_days: set[int]) -> None:
        self._connect = connect
        self.name = name
        self._connection: asyncpg.Connection[Any] | None = None
        self._backend: asyncpg.Record | None = None
        self._batch = 0
        self._days = known_days
        self._marks = Marks()
        self._marking: tuple[int, Hours] = (0, {})
        self.waiting = False
        """Whether the database is away and a batch waits for it."""

    @property
    def batch(self) -> int:
        """The number that the ledger's rows have of the last transaction."""
        return self._batch

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=2)

    async def store(self, batch: Batch) -> dict[int, Tally]:
        """Store all of it; returns, once it is committed, what each tenant's messages came to."""
        tallies: dict[int, Tally] = {}
        await self._store(batch.entries, batch.days, tallies)
        return tallies

    async def _store(self, entries: Sequence[Entry], days: set[int], tallies: dict[int, Tally]) -> None:
        careful, attempt, collisions = False, 0, 0
        while True:
            try:
                connection = await self._connected()
                await self._ensure_days(connection, days)
                done = await self._transact(connection, entries, careful)
            except _COLLISION as error:
                careful = True
                collisions += 1
                if collisions > COLLISIONS:
                    await self._halve(entries, days, tallies, error)
                    return
            except asyncpg.PostgresError as error:
                if not isinstance(error, _LATER):
                    await self._halve(entries, days, tallies, error)
                    return
                attempt += 1
                await self._pause(attempt, error)
            except Exception as error:
                # The client library's own confusion after a lost connection is the server's absence too. Our
                # own defect is not, and must not stop the stream: then it is these messages that are refused.
                attempt += 1
                if attempt > DEFECT_TRIES and not isinstance(error, _LATER):
                    log.exception("a batch cannot be stored", entries=len(entries))
                    await self._halve(entries, days, tallies, error)
                    return
                await self._pause(attempt, error)
            else:
                self.waiting = False
                for tenant, tally in done.items():
                    tallies.setdefault(tenant, Tally()).add(tally)
                return

    async def _halve(
        self,
        entries: Sequence[Entry],
        days: set[int],
        tallies: dict[int, Tally],
        error: Exception,
    ) -> None:
        """The database refuses something in these entries: find it, and store the rest."""
        for entry in entries:
            # What a road that led nowhere had found out about them holds no more.
            entry.outcome = entry.letters = None
        if len(entries) > 1:
            middle = len(entries) // 2
            await self._store(entries[:middle], days, tallies)
            await self._store(entries[middle:], days, tallies)
            return
        entry = entries[0]
        log.warning("the database refused a message", topic=entry.message.topic, error=str(error))
        if entry.count > 1:
            parts = _one_row_each(entry)
            await self._store(parts, days, tallies)
            entry.outcome = Tally()
            for part in parts:
                entry.outcome.add(part.outcome or Tally())
            entry.letters = [letter for part in parts for letter in part.letters or ()]
            return
        entry.refusals += 1
        if entry.refusals > 1:
            # Not even its dead letter: then without anything but the bytes, which no database can mind.
            entry.tenant_id, entry.tenant_name, entry.device_name, entry.format = 0, None, None, ""
        if entry.refusals > 2:
            await self._pause(entry.refusals, error)
        entry.rows, entry.count, entry.ack, entry.event, entry.metadata = b"", 0, None, None, None
        entry.held_for, entry.items = None, 1
        entry.dead = [Dead("storage", f"the database refused it: {error}", format=entry.format)]
        await self._store([entry], days, tallies)

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = connection = await self._connect()
            # It may be another server, which took over without our last marks.
            self._marks = Marks()
            # As who signed in: the role we run as may neither see our own backend's start nor end it.
            await connection.execute("set role none")
            if self._backend is not None:
                # To the server the connection that we lost may be alive for hours, holding rows that we are
                # about to store again.
                await connection.execute(sql.END_BACKEND, *self._backend)
            self._backend = await connection.fetchrow(sql.OUR_BACKEND)
            await connection.execute("reset role")
            await connection.execute(sql.INCOMING)
            await connection.execute(sql.FRESH)
        return self._connection

    async def _pause(self, attempt: int, error: BaseException) -> None:
        if not self.waiting:
            log.warning("the database is away; what is in flight waits", writer=self.name, error=repr(error))
        self.waiting = True
        if self._connection is not None and not self._connection.is_closed():
            self._connection.terminate()
        self._connection = None
        # Full jitter: the writers of a fleet must not all come back in the same instant.
        await asyncio.sleep(random.uniform(0.02, min(2.0, 0.05 * 2.0 ** min(attempt, 10))))  # noqa: S311

    async def _ensure_days(self, connection: asyncpg.Connection[Any], days: set[int]) -> None:
        for day in sorted(days - self._days):
            await connection.execute("select caudal.ensure_partition($1)", EPOCH + timedelta(days=day))
            if len(self._days) > 50_000:
                self._days.clear()
            self._days.add(day)

    async def _transact(
        self, connection: asyncpg.Connection[Any], entries: Sequence[Entry], careful: bool
    ) -> dict[int, Tally]:
        transaction = connection.transaction()
        try:
            # A server that vanished without a word would hold us for as long as TCP likes.
            async with asyncio.timeout(WATCHDOG_SECONDS):
                await transaction.start()
                tallies, number = await self._fill(connection, entries, careful)
        except BaseException:
            await self._abandon(connection, transaction)
            raise
        await self._commit(connection, transaction, number)
        self._marks.committed(*self._marking)
        return tallies

    async def _fill(
        self, connection: asyncpg.Connection[Any], entries: Sequence[Entry], careful: bool
    ) -> tuple[dict[int, Tally], str]:
        """Everything of the transaction but its end; returns the sums, and what its verdict is found by."""
        rows = [entry.rows for entry in entries if entry.count]
        if not careful:
            if rows:
                await self._copy(connection, rows, "sample", "caudal")
            if all(entry.simple for entry in entries):
                tallies = _tally_simple(entries)
            else:
                stored = [entry.count for entry in entries]
                tallies = await self._finish(connection, entries, stored, {})
        else:
            await self._copy(connection, rows, "incoming", None)
            stored, conflicts = await self._sort_out(connection, entries)
            tallies = await self._finish(connection, entries, stored, conflicts)
        number, edge = await self._write_ledger(connection, entries, tallies)
        self._marking = edge.epoch, await self._mark(connection, entries, edge)
        return tallies, number

    async def _mark(self, connection: asyncpg.Connection[Any], entries: Sequence[Entry], edge: Edge) -> Hours:
        """Mark the finished hours that these entries add to; returns what was marked."""
        late: Hours = {}
        for entry in entries:
            if entry.count and entry.oldest < edge.threshold:
                if entry.simple:
                    add_packed(late, entry.rows, entry.count, entry.oldest)
                else:
                    add_late(late, entry.rows, entry.count, edge.threshold)
        missing = self._marks.missing(edge.epoch, late)
        await invalidate(connection, missing)
        return missing

    async def _finish(
        self,
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

    async def _abandon(self, connection: asyncpg.Connection[Any], transaction: Any) -> None:
        """Roll back; a connection that cannot even do that is of no more use."""
        try:
            if not connection.is_closed():
                async with asyncio.timeout(ABANDON_SECONDS):
                    await transaction.rollback()
        except Exception:
            connection.terminate()

    async def _commit(self, connection: asyncpg.Connection[Any], transaction: Any, number: str) -> None:
        """Commit; when the connection is lost over it, ask the server afterwards what became of it."""
        try:
            async with asyncio.timeout(WATCHDOG_SECONDS):
                await transaction.commit()
            return
        except _LATER as error:
            attempt = 0
            while True:
                attempt += 1
                await self._pause(attempt, error)
                try:
                    fresh = await self._connected()
                    verdict = await fresh.fetchrow(sql.COMMITTED, number, self.name, self._batch)
                except _LATER:
                    continue
                if verdict is None or verdict["busy"]:
                    # The server may still be working on it.
                    continue
                if verdict["committed"]:
                    return
                raise

    async def _copy(
        self, connection: asyncpg.Connection[Any], rows: list[bytes], table: str, schema: str | None
    ) -> None:
        async def source() -> AsyncIterator[bytes]:
            yield b"".join((HEADER, *rows, TRAILER))

        await connection.copy_to_table(
            table, source=source(), schema_name=schema, columns=COLUMNS, format="binary"
        )

    async def _sort_out(
        self, connection: asyncpg.Connection[Any], entries: Sequence[Entry]
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
                conflicts.setdefault(index, []).append(
                    Dead("conflict", sentence, format=entries[index].format)
                )
        return stored, conflicts

    async def _write_ledger(
        self, connection: asyncpg.Connection[Any], entries: Sequence[Entry], tallies: dict[int, Tally]
    ) -> tuple[str, Edge]:
        """Count; returns the transaction's number, and what its samples are late by."""
        ordered = sorted(tallies.items())
        received = [entry.message.received for entry in entries]
        self._batch = random.getrandbits(63)  # names it, guards nothing
        rows = await connection.fetch(
            sql.LEDGER,
            self.name,
            instant(min(received)),
            instant(max(received)),
            [tenant for tenant, _ in ordered],
            *(
                [getattr(tally, name) for _, tally in ordered]
                for name in ("messages", "received", "stored", "duplicates", "dead", "held", "empty")
            ),
            self._batch,
        )
        return rows[0]["number"], Edge(*rows[0]["edge"])


def _tally_simple(entries: Sequence[Entry]) -> dict[int, Tally]:
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


def _one_row_each(entry: Entry) -> list[Entry]:
    """A message taken apart, for the one row of it that the database refuses.

    The message counts once; what is not samples stays with the first part.
    """
    parts = []
    for number, row in enumerate(split(entry.rows)):
        part = Entry(
            entry.message, entry.tenant_id, 1, rows=row, count=1, format=entry.format,
            tenant_name=entry.tenant_name, device_name=entry.device_name,
        )  # fmt: skip
        if number == 0:
            part.dead, part.ack, part.event = entry.dead, entry.ack, entry.event
            part.held_for = entry.held_for
            part.items += entry.items - entry.count
        else:
            part.whole = False
        parts.append(part)
    return parts


def now_us() -> int:
    """Microseconds since 1970, now."""
    return time.time_ns() // 1000
