"""Waking consumers: NOTIFY after the commit, coalesced, and the connection that listens.

NOTIFY inside a publishing transaction would make every such commit of the whole server wait for the one
before it (PostgreSQL holds one lock for the notification queue until the commit is on disk). After the
commit, in a transaction that writes nothing, it costs a tenth of a millisecond. One that gets lost is made
good by the consumers' look once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from caudal.core import logs

log = logs.get("wake")
LISTEN_RETRY = 0.5


class Announcer:
    """Sends words on a NOTIFY channel; while one is under way, further ones gather and go together."""

    def __init__(self, pool: asyncpg.Pool[Any], channel: str) -> None:
        self._pool = pool
        self._channel = channel
        # A set of words, so bounded by how many topics (or people online) there are.
        self._waiting: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def announce(self, words: tuple[str, ...]) -> None:
        """Send these words soon; never blocks, never raises."""
        self._waiting.update(words)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._send(), name=f"announce {self._channel}")

    async def _send(self) -> None:
        while self._waiting:
            words, self._waiting = list(self._waiting), set()
            try:
                await self._pool.execute(
                    "select pg_notify($1, w) from unnest($2::text[]) w", self._channel, words
                )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                # Consumers look by themselves within a second; trying again would only pile up.
                log.warning("could not wake consumers", channel=self._channel, error=repr(error))

    async def stop(self) -> None:
        """Let what is under way finish."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2)


class Listener:
    """One connection that hears a NOTIFY channel, and comes back after it was lost.

    `heard` is called with each word; `caught_up` after each (re)connection, because words may have been
    missed.
    """

    def __init__(
        self, url: str, channel: str, heard: Callable[[str], None], caught_up: Callable[[], None]
    ) -> None:
        self._url = url
        self._channel = channel
        self._heard = heard
        self._caught_up = caught_up
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and keep connected until stopped. Raises what connecting raises."""
        connection = await self._connect()
        self._task = asyncio.create_task(self._keep(connection), name=f"listen {self._channel}")

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._url, timeout=5, server_settings={"application_name": f"caudal listen {self._channel}"}
        )
        await connection.add_listener(self._channel, lambda _c, _p, _ch, payload: self._heard(str(payload)))
        return connection

    async def _keep(self, connection: asyncpg.Connection[Any]) -> None:
        while True:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _c, event=lost: event.set())
            try:
                self._caught_up()
                await lost.wait()
            finally:
                if not lost.is_set():
                    await connection.close(timeout=2)
            while True:
                try:
                    connection = await self._connect()
                    break
                except (OSError, asyncpg.PostgresError, TimeoutError):
                    await asyncio.sleep(LISTEN_RETRY)

    async def stop(self) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=4)
