"""Notifications of people: kept with dense numbers, so that a socket resumes after the last it saw without a
gap.

Whoever writes calls `publish` within its transaction, and `Notifier.announce` after the commit. Whoever shows
them listens on `CHANNEL`, whose words are `tenant_id:user_id`, and reads with `after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from caudal.core.eventlog.port import Connection
from caudal.core.eventlog.wake import Announcer

CHANNEL = "caudal_notify"


AFTER = """
select n.id, n.payload, n.message_id, m.sender, m.content, m.sent_at, m.file_id, c.name as conversation
from caudal.notification n left join caudal.message m on m.id = n.message_id
left join caudal.conversation c on c.id = m.conversation_id
where n.tenant_id = $1 and n.user_id = $2 and n.id > $3 order by n.id limit $4
"""


class Note(NamedTuple):
    """A notification to be, for one person in one tenant: of a new message, or a socket's frame as it is."""

    tenant_id: int
    user_id: str
    message_id: UUID | None = None
    payload: dict[str, Any] | None = None


class Notification(NamedTuple):
    """A stored notification; `id` grows by one for each of its person's. `payload` is the socket's frame.

    `message_id` only where it is of a new message.
    """

    id: int
    payload: dict[str, Any]
    message_id: UUID | None


async def publish(connection: Connection, notes: Sequence[Note]) -> None:
    """Number and store notifications in the caller's transaction. Late in it: people's cursors are locked."""
    if notes:
        await connection.execute(
            "select caudal.notify_people($1, $2, $3, $4)",
            [note.tenant_id for note in notes],
            [note.user_id for note in notes],
            [note.message_id for note in notes],
            [note.payload for note in notes],
        )  # fmt: skip


async def after(
    connection: Connection, tenant_id: int, user_id: str, last: int, limit: int
) -> list[Notification]:
    """Up to `limit` notifications of a person numbered above `last`, in order."""
    rows = await connection.fetch(AFTER, tenant_id, user_id, last, limit)
    return [Notification(row["id"], row["payload"] or _frame(row), row["message_id"]) for row in rows]


def _frame(row: asyncpg.Record) -> dict[str, Any]:
    frame = {
        "type": "new_message",
        "message_id": str(row["message_id"]),
        "sender_id": row["sender"],
        "conversation_id": row["conversation"],
        "content": row["content"],
        "timestamp": round(row["sent_at"].timestamp() * 1000),
    }
    if row["file_id"] is not None:
        frame["file_id"] = str(row["file_id"])
    return frame


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
