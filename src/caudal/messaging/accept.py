"""Accepting messages: validated, authorised and durable before the answer.

Requests that come at the same time share a commit. A batch closes the moment the tenant's previous one has
committed, so an idle system waits for nobody and a busy one makes larger batches. One batch of a tenant at a
time: what a caller sends after an answer comes after it in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from caudal.core import logs, tracing
from caudal.core.errors import CaudalError, Forbidden, InvalidInput, TooLarge, Unavailable
from caudal.core.eventlog.port import Connection, EventLog
from caudal.core.eventlog.worker import PASSING
from caudal.messaging import topics
from caudal.messaging.ids import new_id
from caudal.messaging.metrics import AcceptMetrics
from caudal.messaging.settings import MessagingSettings

log = logs.get("accept")

CONTENT_MAX = 10 * 1024
NAME_MAX = 255

ACCEPT = (
    "select ord, outcome, message_id from caudal.accept_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
)
# A busy tenant keeps its connection for so many batches, then lets others have it: giving one back and taking
# it again costs as much as a small batch.
BATCHES_HELD = 20
# How often a batch that PostgreSQL rolled back for a deadlock is tried again.
TRIES = 5


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be accepted. `sender` is who the caller is, `recipient` as `address_of` gives it."""

    conversation_id: str
    sender: str
    content: str
    recipient: str | None = None
    file_id: UUID | None = None
    file_metadata: dict[str, object] | None = None
    idempotency_key: str | None = None


OUTCOMES: dict[str, CaudalError] = {
    "forbidden": Forbidden("You take no part in that conversation or group."),
    "no_recipient": InvalidInput("There is no such recipient here. Check recipient_id."),
    "itself": InvalidInput("The recipient is the sender. Leave recipient_id out, or name somebody else."),
    "no_file": InvalidInput("There is no such file in this conversation. Upload it first."),
    "key_reused": InvalidInput("This Idempotency-Key was used for another message. Take a new one."),
}


def check_content(content: str) -> None:
    """Raises TooLarge beyond 10 KiB of UTF-8, InvalidInput for what is blank or cannot be stored."""
    # Only what could be too long is measured.
    if len(content) > CONTENT_MAX // 4 and len(content.encode()) > CONTENT_MAX:
        raise TooLarge("The content is longer than 10 KiB. Send it as a file.")
    if not content.strip():
        raise InvalidInput("The content is blank. Write something, or send a file's name with it.")
    if "\0" in content:
        raise InvalidInput("The content holds a NUL character. Leave it out.")


def check_name(name: str) -> None:
    """Raises InvalidInput for what cannot be a conversation's id: it is part of an address."""
    if not 1 <= len(name) <= NAME_MAX or "\0" in name or "/" in name or not name.strip():
        raise InvalidInput("conversation_id must have 1 to 255 characters, and no slash.")


class _Waiting(msgspec.Struct, eq=False):
    submission: Submission
    answer: asyncio.Future[UUID]


class Acceptor:
    """Accepts messages in batches, one stream of batches for each tenant."""

    def __init__(
        self, pool: asyncpg.Pool[Any], log: EventLog, settings: MessagingSettings, metrics: AcceptMetrics
    ) -> None:
        self._pool = pool
        self._log = log
        self._settings = settings
        self._metrics = metrics
        # Only tenants with something waiting or under way are here.
        self._tenants: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, tenant: str, submission: Submission) -> UUID:
        """Store a message; its id, once it is durable. The same Idempotency-Key gives the same id.

        Raises InvalidInput, TooLarge, Forbidden; Unavailable when it may or may not have been stored (the
        database went away) or too many wait.
        """
        began = perf_counter()
        try:
            check_content(submission.content)
            check_name(submission.conversation_id)
            answer = self._enqueue(tenant, submission)
            number = await answer
        except CaudalError as error:
            self._metrics.rejected.labels(error.code).inc()
            raise
        self._metrics.accepted.inc()
        if tracing.on:
            known = structlog.contextvars.get_contextvars()
            about = {
                "tenant": tenant,
                "message_id": str(number),
                "request_id": known.get("request_id"),
                "request_trace_id": known.get("trace_id"),
            }
            trace = tracing.of_message(number)
            tracing.record("accept", perf_counter() - began, about, trace=trace, root=True, kind="producer")
        return number

    def _enqueue(self, tenant: str, submission: Submission) -> asyncio.Future[UUID]:
        answer: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()
        queue = self._tenants.get(tenant)
        if queue is None:
            queue = self._tenants[tenant] = deque()
            task = asyncio.create_task(self._work(tenant, queue), name="accept")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(queue) >= self._settings.accept_queue:
            raise Unavailable("Too many messages wait to be stored. Try again in a second.")
        queue.append(_Waiting(submission, answer))
        return answer

    async def _work(self, tenant: str, queue: deque[_Waiting]) -> None:
        """Commit batch after batch until nothing waits."""
        while queue:
            try:
                async with self._pool.acquire() as connection:
                    for _ in range(BATCHES_HELD):
                        if not queue or connection.is_closed():
                            break
                        await self._next(tenant, queue, connection)
            except PASSING as error:
                self._unavailable(self._take(queue), error)
        # Nothing was awaited since the queue was seen empty, so nobody slipped in.
        del self._tenants[tenant]

    async def _next(self, tenant: str, queue: deque[_Waiting], connection: Connection) -> None:
        batch = self._take(queue)
        started = perf_counter()
        await self._store(tenant, batch, connection)
        took = perf_counter() - started
        self._metrics.publish.observe(took)
        self._metrics.kafka_publish.observe(took)
        self._metrics.batch.observe(len(batch))

    def _unavailable(self, batch: Sequence[_Waiting], error: Exception) -> None:
        log.warning("messages could not be stored", messages=len(batch), error=repr(error))
        sentence = "The database does not answer. Try again, with the same Idempotency-Key."
        for waiting in batch:
            _fail(waiting, Unavailable(sentence))

    def _take(self, queue: deque[_Waiting]) -> list[_Waiting]:
        """The next batch, in order. A repeated key waits for the next one, to find the first stored."""
        batch: list[_Waiting] = []
        again: list[_Waiting] = []
        keys: set[tuple[str, str]] = set()
        while queue and len(batch) < self._settings.accept_batch:
            waiting = queue.popleft()
            submission = waiting.submission
            if submission.idempotency_key is not None:
                key = (submission.sender, submission.idempotency_key)
                if key in keys:
                    again.append(waiting)
                    continue
                keys.add(key)
            batch.append(waiting)
        queue.extendleft(reversed(again))
        return batch

    async def _store(self, tenant: str, batch: Sequence[_Waiting], connection: Connection) -> None:
        """Store a batch and answer; whatever goes wrong, every one of them is answered."""
        try:
            rows = await self._transact(tenant, [waiting.submission for waiting in batch], connection)
        except PASSING as error:
            self._unavailable(batch, error)
        except Exception as error:
            if len(batch) == 1:
                log.error("message refused by the database", error=type(error).__name__)
                _fail(batch[0], error)
                return
            # One bad message must not fail its neighbours.
            middle = len(batch) // 2
            await self._store(tenant, batch[:middle], connection)
            await self._store(tenant, batch[middle:], connection)
        except BaseException:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        else:
            for waiting, row in zip(batch, rows, strict=True):
                if waiting.answer.done():
                    continue
                outcome = row["outcome"]
                if outcome in ("accepted", "repeated"):
                    waiting.answer.set_result(row["message_id"])
                else:
                    _fail(waiting, OUTCOMES[outcome])

    async def _transact(
        self, tenant: str, batch: Sequence[Submission], connection: Connection
    ) -> list[asyncpg.Record]:
        at = datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        stamp = int(at.timestamp()) * 1000 + at.microsecond // 1000
        ids = [new_id() for _ in batch]
        values = [_encode(number, stamp, tenant, one) for number, one in zip(ids, batch, strict=True)]
        arguments = (
            tenant,
            ids,
            [one.conversation_id for one in batch],
            [one.sender for one in batch],
            [one.recipient for one in batch],
            [one.content for one in batch],
            [one.file_id for one in batch],
            [one.idempotency_key for one in batch],
            values,
            at,
        )
        for attempt in range(TRIES):
            try:
                # One statement is one transaction.
                rows: list[asyncpg.Record] = await connection.fetch(ACCEPT, *arguments)
                break
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                if attempt == TRIES - 1:
                    raise
        self._log.announce(topics.MESSAGES)
        return rows

    async def stop(self) -> None:
        """Let batches under way be committed and answered."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


def _encode(number: UUID, stamp: int, tenant: str, one: Submission) -> bytes:
    return msgspec.json.encode(
        topics.MessageRecord(
            message_id=str(number),
            conversation_id=one.conversation_id,
            sender_id=one.sender,
            recipient_id=one.recipient,
            content=one.content,
            timestamp=stamp,
            event_type=topics.MESSAGE_SENT,
            file_id=None if one.file_id is None else str(one.file_id),
            file_metadata=one.file_metadata,
            tenant=tenant,
        )
    )


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
