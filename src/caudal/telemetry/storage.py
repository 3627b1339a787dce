"""Putting a batch into the database: one transaction, after which every message of it has come to something.

The fast road is one message that counts and copies straight into the table (see transaction.py). A batch that
meets a row already there takes the slower road through a temporary table, which tells duplicates from
conflicts. A batch that the database refuses is halved until the bad row stands alone. Nothing here gives up
because the database is away: it waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg

from caudal.core import logs
from caudal.telemetry import statements as sql
from caudal.telemetry.batch import Batch, Dead, Entry, Tally
from caudal.telemetry.invalidation import Marks
from caudal.telemetry.others import EPOCH
from caudal.telemetry.rows import split
from caudal.telemetry.transaction import LATE, Mark, fill, store_at_once, tally_simple

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
        self._threshold = 0
        self._days = known_days
        self._marks = Marks()
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
                done = None
                if not careful and self._usual(entries):
                    done = await self._at_once(connection, entries)
                if done is None:
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
        entry.held_for, entry.items, entry.simple = None, 1, False
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
                filled = await fill(connection, entries, self._new_mark(), self._marks, careful=careful)
        except BaseException:
            await self._abandon(connection, transaction)
            raise
        self._threshold = filled.edge.threshold
        await self._commit(connection, transaction, filled.number)
        self._marks.committed(filled.edge.epoch, filled.marked)
        return filled.tallies

    def _new_mark(self) -> Mark:
        self._batch = random.getrandbits(63)  # names it, guards nothing
        return Mark(self.name, self._batch)

    def _usual(self, entries: Sequence[Entry]) -> bool:
        """Whether these are samples alone, and none of them late as far as we know."""
        threshold = self._threshold
        return all(entry.simple and entry.oldest >= threshold for entry in entries)

    async def _at_once(
        self, connection: asyncpg.Connection[Any], entries: Sequence[Entry]
    ) -> dict[int, Tally] | None:
        """The whole transaction in one round trip; None when it has to take the longer road."""
        lost = self._backend
        try:
            async with asyncio.timeout(WATCHDOG_SECONDS):
                return await store_at_once(connection, entries, self._new_mark())
        except asyncpg.PostgresError as error:
            if error.sqlstate == LATE:
                return None
            if not isinstance(error, _LATER):
                raise
            failure: Exception = error
        except Exception as error:
            failure = error
        if await self._counted_after(failure, lost):
            return tally_simple(entries)
        raise failure

    async def _counted_after(self, error: Exception, lost: asyncpg.Record | None) -> bool:
        """The connection (of backend `lost`) failed over a transaction: whether that was committed."""
        attempt = 0
        while True:
            attempt += 1
            await self._pause(attempt, error)
            try:
                fresh = await self._connected()
                await fresh.execute("set role none")
                try:
                    alive = lost is not None and await fresh.fetchval(sql.ALIVE, *lost)
                finally:
                    await fresh.execute("reset role")
                if not alive:
                    return bool(await fresh.fetchval(sql.COUNTED, self.name, self._batch))
            except _LATER:
                continue

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
