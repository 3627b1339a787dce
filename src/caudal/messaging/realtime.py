"""Sockets: each shows its person's notifications, in order, from the last one seen.

Nothing is buffered for a socket. What it has not been sent lies in the database, and a socket reads the next
page when the one before is on its way; so a slow one holds a page, and after a while is cut off. As many
processes as wanted serve sockets: PostgreSQL wakes all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.errors import CaudalError
from caudal.core.eventlog.wake import Listener
from caudal.core.eventlog.worker import PASSING
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.messaging import notify
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.realtime_settings import RealtimeSettings

log = logs.get("realtime")

REFUSED, FAULT, LATER = 1008, 1011, 1013
PAGE = 100
# How often we look for what nobody woke us for, and how long the database may be away, in seconds.
LOOK, PATIENCE = 5.0, 10.0

BY_MESSAGE = """
select max(id) from caudal.notification
where tenant_id = $1 and user_id = $2 and (message_id = $3 or payload->>'message_id' = $3::text)
"""
BEHIND = """
select p.tenant_id, p.user_id, c.last from unnest($1::int[], $2::text[]) p(tenant_id, user_id)
join caudal.notification_cursor c on c.tenant_id = p.tenant_id and c.user_id = p.user_id
"""


class Sink(Protocol):
    """Where frames go."""

    async def send(self, text: str) -> None:
        """Send one frame; waits while the reader is slow."""
        ...


class Closed(CaudalError):
    """A socket that is to be closed, with the code and why."""

    code = "closed"

    def __init__(self, number: int, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence, code=code)
        self.number = number


class _Connection:
    """One socket of one person. `last` is the number of the last notification it was sent."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.last = 0
        self.pings = False


Person = tuple[int, str]


def _now() -> int:
    return time.time_ns() // 1_000_000


def is_ping(text: str) -> bool:
    """Whether a frame asks for a pong: `ping`, or JSON of that type."""
    if text.strip() == "ping":
        return True
    try:
        frame = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(frame, dict) and frame.get("type") == "ping"


class Hub:
    """The sockets of this process. `pool` runs as `caudal_messaging`, `url` is for listening."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        url: str,
        settings: RealtimeSettings,
        metrics: Metrics,
        deliveries: Deliveries,
    ) -> None:
        self._pool = pool
        self._deliveries = deliveries
        self._settings = settings
        self._people: dict[Person, set[_Connection]] = {}
        self._active = 0
        self._listener = Listener(url, notify.CHANNEL, self._heard, self._wake_all)
        metrics.gauge("websocket_connections_active", "Sockets open now", read=lambda: self._active)
        self._sent = metrics.counter("notifications_sent", "Notifications sent to sockets")
        self._ended = metrics.counter("websocket_closed", "Sockets that ended", "reason")

    async def start(self, life: Lifecycle) -> None:
        """Listen, as a part of `life`. Raises what connecting raises."""
        await self._listener.start()
        life.on_stop("listener of notifications", self._listener.stop)
        life.spawn("look for missed notifications", self._look())

    # -- waking

    def _heard(self, word: str) -> None:
        tenant, _, user = word.partition(":")
        if tenant.isdigit():
            for connection in self._people.get((int(tenant), user), ()):
                connection.wake.set()

    def _wake_all(self) -> None:
        for connections in self._people.values():
            for connection in connections:
                connection.wake.set()

    async def _look(self) -> None:
        """Words can be lost (whoever sends one does not try twice): ask, for everybody at once."""
        while True:
            await asyncio.sleep(LOOK)
            people = list(self._people)
            try:
                rows = await self._pool.fetch(BEHIND, [p[0] for p in people], [p[1] for p in people])
            except PASSING:
                continue
            for row in rows:
                for connection in self._people.get((row["tenant_id"], row["user_id"]), ()):
                    if connection.last < row["last"]:
                        connection.wake.set()

    # -- one socket

    async def serve(
        self,
        person: Person,
        last_id: str | None,
        sink: Sink,
        incoming: AsyncIterator[str],
        check: Callable[[], Awaitable[None]],
    ) -> None:
        """Show a person's notifications until the socket ends.

        Begins after `last_id` (a number, or a message's id), without one with what comes from now on.
        `check` raises Closed when the socket's token no longer holds. Raises Closed when it is to be closed.
        """
        connection = self._open(person)
        try:
            # Registered first: what comes while we look up where to begin wakes us.
            connection.last = await self._patiently(lambda: self._begin(person, last_id))
            hello = {
                "type": "connected", "userId": person[1], "timestamp": _now(), "last_id": connection.last
            }  # fmt: skip
            await self._send(sink, hello)
            tasks = [
                asyncio.create_task(self._listen(connection, incoming), name="socket reader"),
                asyncio.create_task(self._show(person, connection, sink, check), name="socket writer"),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            for task in done:
                task.result()
        except Closed as closed:
            self._ended.labels(closed.code).inc()
            raise
        else:
            self._ended.labels("client").inc()
        finally:
            self._close(person, connection)

    async def news(self, person: Person) -> AsyncGenerator[None, None]:
        """At once, and then each time there is something new for a person, who reads it elsewhere: nothing
        counts as delivered by this. It takes the place of a socket. Raises Closed when there is none."""
        connection = self._open(person)
        try:
            while True:
                connection.wake.clear()
                connection.last = await self._patiently(lambda: self._begin(person, None))
                yield
                await connection.wake.wait()
        finally:
            self._close(person, connection)

    def _open(self, person: Person) -> _Connection:
        mine = self._people.setdefault(person, set())
        if self._active >= self._settings.sockets_max or len(mine) >= self._settings.sockets_per_person:
            if not mine:
                del self._people[person]
            self._ended.labels("full").inc()
            raise Closed(LATER, "Too many sockets are open. Close one, or try later.")
        connection = _Connection()
        mine.add(connection)
        self._active += 1
        return connection

    def _close(self, person: Person, connection: _Connection) -> None:
        self._active -= 1
        mine = self._people[person]
        mine.discard(connection)
        if not mine:
            del self._people[person]

    async def _begin(self, person: Person, last_id: str | None) -> int:
        """The number of the last notification that the client has seen."""
        async with self._pool.acquire() as connection:
            newest = await notify.latest(connection, *person)
        if last_id is None:
            return newest
        if last_id.isascii() and last_id.isdigit() and len(last_id) < 19:
            # A number that we have not come to is none of ours.
            return min(int(last_id), newest)
        try:
            message = UUID(last_id)
        except ValueError:
            raise Closed(REFUSED, "last_id is neither a notification's number nor a message's id.") from None
        # Not known (any more): everything that is kept, rather than a gap.
        return await self._pool.fetchval(BY_MESSAGE, *person, message) or 0

    async def _listen(self, connection: _Connection, incoming: AsyncIterator[str]) -> None:
        async for text in incoming:
            if is_ping(text):
                # However many came, one answer is on its way at a time.
                connection.pings = True
                connection.wake.set()

    async def _show(
        self, person: Person, connection: _Connection, sink: Sink, check: Callable[[], Awaitable[None]]
    ) -> None:
        checked = time.monotonic()
        while True:
            connection.wake.clear()
            if connection.pings:
                connection.pings = False
                await self._send(sink, {"type": "pong", "timestamp": _now()})
            if time.monotonic() - checked >= self._settings.socket_check_seconds:
                await check()
                checked = time.monotonic()
            more = await self._page(person, connection, sink)
            if not more:
                try:
                    async with asyncio.timeout(self._settings.socket_check_seconds):
                        await connection.wake.wait()
                except TimeoutError:
                    pass

    async def _page(self, person: Person, connection: _Connection, sink: Sink) -> bool:
        """Send what comes next; whether there may be more."""

        async def ask() -> list[notify.Notification]:
            async with self._pool.acquire() as database:
                return await notify.after(database, *person, connection.last, PAGE)

        notes = await self._patiently(ask)
        shown: list[UUID] = []
        try:
            for note in notes:
                if note.id > connection.last + 1:
                    # Away for longer than notifications are kept: say so, rather than pretend.
                    await self._send(sink, {"type": "gap", "last_id": connection.last, "id": note.id})
                await self._send(sink, {**note.payload, "id": note.id})
                connection.last = note.id
                self._sent.inc()
                if note.message_id is not None:
                    shown.append(note.message_id)
        finally:
            if shown:
                # Also when the next could not be sent: these were.
                await self._arrived(person, shown)
        return len(notes) == PAGE

    async def _arrived(self, person: Person, shown: list[UUID]) -> None:
        try:
            await self._deliveries.arrived(*person, shown)
        except PASSING as error:
            # They stay SENT until they are read, or shown again in history; showing goes on.
            log.warning("could not say what was delivered", messages=len(shown), error=repr(error))

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask the database, again for a while when it is away. Raises Closed."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask()
            except PASSING as error:
                if time.monotonic() > until:
                    raise Closed(
                        FAULT, "The database does not answer. Come back with the last id."
                    ) from error
                await asyncio.sleep(0.5)

    async def _send(self, sink: Sink, frame: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._settings.socket_send_seconds):
                await sink.send(msgspec.json.encode(frame).decode())
        except TimeoutError:
            raise Closed(LATER, "You read too slowly. Come back with the last id.", code="slow") from None
