"""Notifications of people: kept with dense numbers, so that a socket resumes after the last it saw without a
gap.

Whoever writes calls `publish` within its transaction, and `Notifier.announce` after the commit. Whoever shows
them listens on `CHANNEL`, whose words are `tenant_id:user_id`, and reads with `after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from caudal.core.eventlog.port import Connection
from caudal.core.eventlog.wake import Announcer

CHANNEL = "caudal_notify"


class Note(NamedTuple):
    """A notification to be: for one person in one tenant; the payload is the socket's frame."""

    tenant_id: int
    user_id: str
    payload: dict[str, Any]


class Notification(NamedTuple):
    """A stored notification; `id` grows by one for each of its person's."""

    id: int
    payload: dict[str, Any]
    created_at: datetime


async def publish(connection: Connection, notes: Sequence[Note]) -> None:
    """Number and store notifications in the caller's transaction. Late in it: people's cursors are locked."""
    if notes:
        await connection.execute(
            "select caudal.notify_people($1, $2, $3)",
            [note.tenant_id for note in notes],
            [note.user_id for note in notes],
            [note.payload for note in notes],
        )  # fmt: skip


async def after(
    connection: Connection, tenant_id: int, user_id: str, last: int, limit: int
) -> list[Notification]:
    """Up to `limit` notifications of a person numbered above `last`, in order."""
    rows = await connection.fetch(
        "select id, payload, created_at from caudal.notification"
        " where tenant_id = $1 and user_id = $2 and id > $3 order by id limit $4",
        tenant_id, user_id, last, limit,
    )  # fmt: skip
    return [Notification(*row.values()) for row in rows]


async def latest(connection: Connection, tenant_id: int, user_id: str) -> int:
    """The number of a person's last notification, 0 when there was none."""
    last = await connection.fetchval(
        "select last from caudal.notification_cursor where tenant_id = $1 and user_id = $2",
        tenant_id,
        user_id,
    )
    return last or 0


class Notifier:
    """Wakes the sockets of people after a commit."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._announcer = Announcer(pool, CHANNEL)

    def announce(self, people: Iterable[tuple[int, str]]) -> None:
        """Say that there is something new for these (tenant id, user id)."""
        self._announcer.announce(tuple(f"{tenant}:{user}" for tenant, user in people))

    async def stop(self) -> None:
        """Let what is under way finish."""
        await self._announcer.stop()
