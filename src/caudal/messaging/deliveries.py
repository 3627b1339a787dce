"""What becomes of a delivery: connectors and webhooks tell it here, and nobody else writes these tables.

A connector takes an outbound record from the log and does, in this order:

    intent = await deliveries.record_intent(record.delivery_id, account="…")
    if intent.verdict is not Verdict.CALL: return            # the record is done with
    …call the provider…
    await deliveries.settle(record.delivery_id, intent.attempt, Sent(provider_id))

with `Failed` when the provider refused for good, `Unknown` when the request went out and no answer came (it
is not sent again; receipts settle it), or `defer` when the provider certainly did not take it and later may.
Receipts come to `apply_receipts`, in any order and any number of times; what a person writes to us comes to
`inbound`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from caudal.core import logs
from caudal.core.eventlog.port import Connection, EventLog, Poison
from caudal.messaging import delivery_sql as sql
from caudal.messaging import notify, topics
from caudal.messaging.lattice import STATE, STATUS, State
from caudal.messaging.notify import Notifier
from caudal.messaging.records import is_person, outbound_records, status_note, status_record, tenant_names
from caudal.messaging.settings import MessagingSettings

log = logs.get("deliveries")


# Wakes whoever waits for what was written; called after the commit.
AfterCommit = Callable[[], None]
TRIES = 5


class Verdict(StrEnum):
    """What to do with an outbound record."""

    CALL = "call"
    WAIT = "wait"
    DONE = "done"


class Intent(NamedTuple):
    """The answer to `record_intent`. `was` is the state the delivery was found in, for the log."""

    verdict: Verdict
    attempt: int
    was: str


class Sent(NamedTuple):
    """The provider took it and gave it an id (None where a provider gives none)."""

    provider_id: str | None


class Failed(NamedTuple):
    """It will not be sent. `code` is machine-readable, `sentence` is shown to people."""

    code: str
    sentence: str


class Unknown(NamedTuple):
    """The request went out and no answer came."""

    sentence: str = "The provider did not answer; whether it has the message only its receipts can say."


class Receipt(NamedTuple):
    """The provider's word. `delivery_id` when the provider echoed it, else it is found by `provider_id`.

    `attempt` belongs to `delivery_id`, the present one when left out: late news of an earlier call must not
    pass for news of the present one.
    """

    tenant_id: int
    channel: str
    provider_id: str
    state: State
    at: datetime
    code: str | None = None
    sentence: str | None = None
    delivery_id: int | None = None
    attempt: int | None = None


class _Move(NamedTuple):
    delivery_id: int
    attempt: int | None
    state: str
    at: datetime
    code: str | None = None
    sentence: str | None = None


def _now() -> datetime:
    return datetime.now(UTC)


FOLLOW = 20


class Deliveries:
    """Moves deliveries. Each call is one transaction, durable when it returns; safe to repeat."""

    def __init__(
        self, pool: asyncpg.Pool[Any], log: EventLog, notifier: Notifier, settings: MessagingSettings
    ) -> None:
        self._pool = pool
        self._log = log
        self._notifier = notifier
        self._settings = settings

    async def _transact(self, work: Callable[[Connection], Awaitable[AfterCommit]]) -> None:
        """Run `work` in a transaction; again when PostgreSQL broke a deadlock at our cost."""
        for attempt in range(TRIES):
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    after = await work(connection)
                after()
                return
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                if attempt == TRIES - 1:
                    raise

    async def record_intent(self, delivery_id: int, account: str | None = None) -> Intent:
        """Say that the provider is going to be called; only `Verdict.CALL` allows it.

        One that an earlier worker was calling when it died becomes `unknown` here: it is not called again.
        """
        row = await self._pool.fetchrow("select * from caudal.delivery_intent($1, $2)", delivery_id, account)
        assert row is not None
        intent = Intent(Verdict(row["verdict"]), row["attempt"] or 0, row["was"] or "gone")
        if intent.was == State.SENDING:
            await self.settle(delivery_id, intent.attempt, Unknown())
        elif intent.was == "expired":
            await self.settle(delivery_id, intent.attempt, _expired())
        return intent

    async def settle(self, delivery_id: int, attempt: int, outcome: Sent | Failed | Unknown) -> None:
        """Say how the call of `attempt` ended. Late news of an earlier attempt changes nothing."""
        if isinstance(outcome, Sent):
            moves = [_Move(delivery_id, attempt, State.SENT, _now())]
        elif isinstance(outcome, Failed):
            moves = [_Move(delivery_id, attempt, State.FAILED, _now(), outcome.code, outcome.sentence)]
        else:
            moves = [_Move(delivery_id, attempt, State.UNKNOWN, _now(), "no_answer", outcome.sentence)]

        async def work(connection: Connection) -> AfterCommit:
            early: list[asyncpg.Record] = []
            if isinstance(outcome, Sent) and outcome.provider_id is not None:
                early = await connection.fetch(
                    "select * from caudal.delivery_refer($1, $2, $3)",
                    delivery_id,
                    attempt,
                    outcome.provider_id,
                )
            kept = [_Move(delivery_id, attempt, *row.values()) for row in early]
            return await self._move(connection, [*moves, *kept])

        await self._transact(work)

    async def defer(
        self,
        delivery_id: int,
        attempt: int | None,
        until: datetime,
        code: str,
        sentence: str,
        *,
        called: bool = True,
    ) -> bool:
        """Have a delivery wait until `until`, those behind it too; the provider certainly did not take it.

        After DELIVERY_MAX_ATTEMPTS such calls it fails instead, and False is returned. With `called` false (a
        breaker was open, a limit was reached, an operator must act) it waits without an end but its expiry.
        `attempt` is None when there was not even an intent: then only what is still pending is put back.
        """
        most = self._settings.delivery_max_attempts if called else None
        waits = await self._pool.fetchval(
            "select caudal.delivery_defer($1, $2, $3, $4, $5, $6)",
            delivery_id, attempt, until, code, sentence, most,
        )  # fmt: skip
        if not waits and attempt is not None:
            given_up = Failed(code, f"Given up after {most} attempts. {sentence}")
            await self.settle(delivery_id, attempt, given_up)
        return bool(waits)

    async def apply_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Apply receipts, in one transaction. Those of messages we do not know yet are kept for them."""
        if not receipts:
            return
        await self._transact(lambda connection: self.receipts_in(connection, receipts))

    async def receipts_in(self, connection: Connection, receipts: Sequence[Receipt]) -> AfterCommit:
        """As `apply_receipts`, within the caller's transaction; call what is returned after the commit."""
        moves = []
        # In one order for everybody, because each takes the lock of its provider's id.
        for receipt in sorted(receipts, key=lambda r: (r.tenant_id, r.channel, r.provider_id)):
            if receipt.delivery_id is not None:
                moves += await self._referred(connection, receipt)
                continue
            row = await connection.fetchrow(
                "select * from caudal.delivery_receipt($1, $2, $3, $4, $5, $6, $7)",
                receipt.tenant_id, receipt.channel, receipt.provider_id, receipt.state, receipt.at,
                receipt.code, receipt.sentence,
            )  # fmt: skip
            if row is not None:
                moves.append(
                    _Move(
                        row["delivery_id"],
                        row["attempt"],
                        receipt.state,
                        receipt.at,
                        receipt.code,
                        receipt.sentence,
                    )
                )
        return await self._move(connection, moves)

    async def statuses_in(
        self, connection: Connection, statuses: Sequence[topics.StatusRecord]
    ) -> AfterCommit:
        """Apply statuses that name a message and a channel, within the caller's transaction."""
        moves = []
        for status in statuses:
            at = datetime.fromtimestamp(status.timestamp / 1000, UTC)
            rows = await connection.fetch(
                "select id from caudal.delivery where message_id = $1::uuid and channel = $2 order by id",
                status.message_id, status.connector,
            )  # fmt: skip
            if not rows:
                raise Poison("unknown_message", "No delivery of ours on that channel.", tenant=status.tenant)
            moves += [
                _Move(row["id"], None, STATE[status.status], at, "connector", status.reason) for row in rows
            ]
        return await self._move(connection, moves)

    async def _referred(self, connection: Connection, receipt: Receipt) -> list[_Move]:
        row = await connection.fetchrow(
            "select attempt from caudal.delivery where id = $1 and tenant_id = $2 and channel = $3",
            receipt.delivery_id, receipt.tenant_id, receipt.channel,
        )  # fmt: skip
        if row is None or receipt.delivery_id is None:
            return []
        attempt = row["attempt"] if receipt.attempt is None else receipt.attempt
        early = await connection.fetch(
            "select * from caudal.delivery_refer($1, $2, $3)",
            receipt.delivery_id, attempt, receipt.provider_id,
        )  # fmt: skip
        mine = _Move(receipt.delivery_id, attempt, receipt.state, receipt.at, receipt.code, receipt.sentence)
        return [mine, *(_Move(receipt.delivery_id, attempt, *kept.values()) for kept in early)]

    async def _move(self, connection: Connection, moves: Sequence[_Move]) -> AfterCommit:
        """Deliveries, then messages, then senders, then the log: everybody locks in this order."""
        if not moves:
            return lambda: None
        columns: Iterable[Any] = map(list, zip(*moves, strict=True))
        rows = await connection.fetch(
            "select * from caudal.delivery_advance($1, $2, $3, $4, $5, $6)", *columns
        )
        changed = await connection.fetch(
            "select * from caudal.message_refresh($1)", list({row["message_id"] for row in rows})
        )
        notes = [status_note(row) for row in changed if is_person(row["sender"])]
        moved = [row for row in rows if row["moved"]]
        free = (
            await connection.fetch(sql.BEHIND, [row["delivery_id"] for row in moved], FOLLOW) if moved else []
        )
        tenants = await tenant_names(connection, {row["tenant_id"] for row in moved})
        await notify.publish(connection, notes)
        out = await outbound_records(connection, [row["id"] for row in free])
        out += [status_record(row, tenants[row["tenant_id"]]) for row in moved if row["state"] in STATUS]
        await self._log.publish(out, connection)

        def after() -> None:
            self._log.announce(*{record.topic for record in out})
            self._notifier.announce({(note.tenant_id, note.user_id) for note in notes})

        return after

    async def read_in(
        self, connection: Connection, delivery_id: int, read_at: datetime | None
    ) -> tuple[AfterCommit, datetime]:
        """Mark a person's own copy as read, within the caller's transaction; the first time counts."""
        if read_at is not None:
            return (lambda: None), read_at
        at = _now()
        return await self._move(connection, [_Move(delivery_id, None, State.READ, at)]), at

    async def arrived(self, tenant_id: int, user_id: str, message_ids: Sequence[UUID]) -> None:
        """Say that these messages were shown to a person here: on a socket, or in history."""
        await self._transact(lambda connection: self.arrived_in(connection, tenant_id, user_id, message_ids))

    async def arrived_in(
        self, connection: Connection, tenant_id: int, user_id: str, message_ids: Sequence[UUID]
    ) -> AfterCommit:
        """As `arrived`, within the caller's transaction; call what is returned after the commit."""
        rows = await connection.fetch(sql.SHOWN, tenant_id, user_id, list(message_ids))
        return await self._move(connection, [_Move(row["id"], None, State.DELIVERED, _now()) for row in rows])

    # -- waiting, expiring, sending again

    async def release_due(self, *, stuck: bool = False, limit: int = 200) -> int:
        """Publish again what has waited long enough; returns how many. Any number of processes may do it.

        With `stuck` also those that wait for nobody any more, which a race of two workers can leave behind.
        """
        released = 0

        async def work(connection: Connection) -> AfterCommit:
            nonlocal released
            rows = await connection.fetch(
                "select * from caudal.delivery_release(now(), $1, $2, $3)", limit, FOLLOW, stuck
            )
            released = len(rows)
            out = await outbound_records(connection, [row["delivery_id"] for row in rows])
            await self._log.publish(out, connection)
            return lambda: self._log.announce(*{record.topic for record in out})

        await self._transact(work)
        return released

    async def expire(self, limit: int = 500) -> int:
        """Fail what was not sent in time, call unknown what nobody has spoken of; returns how many."""
        silent = timedelta(seconds=self._settings.sending_timeout_seconds)
        moves: list[_Move] = []

        async def work(connection: Connection) -> AfterCommit:
            late = await connection.fetch(sql.EXPIRED, limit)
            mute = await connection.fetch(sql.SILENT, silent, limit)
            moves[:] = [_Move(row["id"], row["attempt"], State.FAILED, _now(), *_expired()) for row in late]
            moves.extend(
                _Move(row["id"], row["attempt"], State.UNKNOWN, _now(), "no_answer", Unknown().sentence)
                for row in mute
            )
            return await self._move(connection, moves)

        await self._transact(work)
        return len(moves)

    async def resend(self, connection: Connection, tenant_id: int, delivery_id: int) -> AfterCommit | None:
        """Send a failed or unknown delivery again, as a new attempt, in the caller's transaction.

        None when there is no such delivery, or it is not failed or unknown. Call what is returned after the
        commit.
        """
        expiry = timedelta(hours=self._settings.delivery_expiry_hours)
        if await connection.fetchval(sql.RESEND, delivery_id, tenant_id, expiry) is None:
            return None
        await connection.execute(sql.REOPEN, delivery_id)
        out = await outbound_records(connection, [delivery_id])
        await self._log.publish(out, connection)
        return lambda: self._log.announce(*{record.topic for record in out})


def _expired() -> Failed:
    return Failed("expired", "It could not be sent before it expired.")
