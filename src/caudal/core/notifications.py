"""PostgreSQL notifications for as long as a process lives: reconnects, and says when some may be lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from caudal.core import logs

log = logs.get("notifications")


async def listen_for_ever(
    connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
    channels: Mapping[str, Callable[[str], None]],
    *,
    on_gap: Callable[[], None],
) -> None:
    """Call each channel's function with every payload; `on_gap` after each (re)connection.

    What was notified while nobody listened is lost: `on_gap` must read anew whatever it depends on. It is
    called once listening has begun, so that nothing falls between the two.
    """
    attempt = 0
    while True:
        lost = asyncio.Event()
        try:
            connection = await connect()
            connection.add_termination_listener(lambda _connection, lost=lost: lost.set())
            for channel, act in channels.items():
                await connection.add_listener(
                    channel, lambda _connection, _pid, _channel, payload, act=act: act(payload)
                )
            attempt = 0
            on_gap()
            try:
                await lost.wait()
            finally:
                await connection.close(timeout=2)
            log.warning("listening was interrupted", channels=sorted(channels))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            attempt += 1
            if attempt == 1:
                log.warning("cannot listen; trying again", error=repr(error))
        await asyncio.sleep(random.uniform(0.05, min(5.0, 0.1 * 2.0 ** min(attempt, 8))))  # noqa: S311
