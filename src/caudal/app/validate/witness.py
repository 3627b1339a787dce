"""Whether an acknowledgement says what it should: that the message is committed and can be read.

Two ways to catch a door that acknowledges first. One is certain: a device's registration is held up, so that
its message cannot be stored, and then no acknowledgement may come. The other looks the way clients do, and
under load: rows are read, on open connections, at the moment their PUBACK comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from time import perf_counter
from typing import Any

import msgspec

from caudal.app.validate.context import Context, Failed, now, v1
from caudal.app.validate.line import Ack
from caudal.app.validate.report import Finding

HOLD_SECONDS = 0.3
"""Short, as nobody else's new device is registered meanwhile; far longer than any early acknowledgement."""
READ = "select true from ts_measure where device_id = $1 and point_id = $2 and ts = $3"


class Witness:
    """Reads the row of an acknowledged message at once, whenever a connection is free.

    `readable` is the seconds from publish to having read it; `unseen` names what was acknowledged and not
    there.
    """

    def __init__(self, statements: list[Any], *, patience: float) -> None:
        self._free = statements
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self.readable: list[float] = []
        self.unseen: list[str] = []

    @property
    def looked(self) -> int:
        """How many rows were looked for."""
        return len(self.readable) + len(self.unseen)

    def watch(self, future: asyncio.Future[Ack], device: str, point: str, at: datetime) -> None:
        """Look for the row as soon as `future` has an acknowledgement."""

        def acknowledged(done: asyncio.Future[Ack]) -> None:
            if not self._free or done.cancelled() or done.exception() or done.result().reason >= 0x80:
                return
            came = perf_counter()
            task = asyncio.create_task(
                self._look(self._free.pop(), device, point, at, came, done.result().seconds), name="witness"
            )
            self._tasks.add(task)
            task.add_done_callback(self._ended)

        future.add_done_callback(acknowledged)

    async def _look(
        self, statement: Any, device: str, point: str, at: datetime, came: float, took: float
    ) -> None:
        try:
            while not await statement.fetchval(device, point, at):
                if perf_counter() - came >= self._patience:
                    self.unseen.append(f"{device} {at.isoformat()}")
                    return
                await asyncio.sleep(0.01)
            self.readable.append(took + perf_counter() - came)
        finally:
            self._free.append(statement)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error

    async def finished(self) -> None:
        """Until all looks are over. Raises what one of them failed of."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error

    def judge(self, finding: Finding) -> None:
        """Put what was seen into `finding`."""
        finding.measured["looked_for_at_puback"] = self.looked
        finding.measured["not_there_at_puback"] = len(self.unseen)
        finding.expect(
            not self.unseen,
            f"{len(self.unseen)} of {self.looked} messages could not be read when their PUBACK came: it is"
            " sent before the commit.",
        )
        finding.expect(self.looked > 0, "No message could be looked for at its PUBACK.")


@asynccontextmanager
async def witness(context: Context) -> AsyncIterator[Witness]:
    """Connections that stand ready. Behind a broker a look may take seconds: its PUBACK promises less."""
    pool = context.ground.reader
    async with pool.acquire() as first, pool.acquire() as second:
        made = Witness(
            [await connection.prepare(READ) for connection in (first, second)],
            patience=5.0 if context.load.broker else 0.0,
        )
        yield made
        await made.finished()


async def hold_back(context: Context, finding: Finding) -> None:
    """Publish what cannot be stored for a moment; nothing may acknowledge it until it is."""
    device = context.device("held")
    line = await context.line("held")
    # It is the name's unique index that waits: whoever registers this device stands behind our transaction,
    # which ends by itself should we vanish.
    async with context.ground.admin.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute("set local idle_in_transaction_session_timeout = '3s'")
            await connection.execute(
                "insert into caudal.device(tenant_id, name) values ($1, $2)", context.ground.tenant_id, device
            )
            future = line.publish(context.topic(device), msgspec.json.encode(v1(now(), {"n": 1})))
            await asyncio.wait({future}, timeout=HOLD_SECONDS)
            early = future.done()
        finally:
            await transaction.rollback()
    finding.expect(not early, "A message that could not be stored yet was acknowledged: before its commit.")
    finding.measured["acknowledged_while_held_back"] = int(early)
    await context.settled(future)
    found = await context.eventually(lambda: context.rows(device), lambda rows: len(rows) == 1, 5.0)
    if len(found) != 1:
        raise Failed("A message that had been held back was acknowledged and cannot be read.")
