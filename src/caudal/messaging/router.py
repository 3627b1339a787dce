"""The router: takes accepted messages from the log and makes their deliveries, once for each.

As many routers as wanted share the log's partitions. All messages of a conversation are in one partition, so
one router has them, in order. A batch is one transaction: deliveries, notifications, outbound records, and
with the PostgreSQL log the commit in the log as well. With Kafka a batch may come again; `routed_at` shows
that it was done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from caudal.core import logs, tracing
from caudal.core.eventlog.port import Connection, EventLog, Poison, Record
from caudal.core.eventlog.worker import AfterCommit
from caudal.messaging import notify, topics
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.lattice import STATE
from caudal.messaging.metrics import RouterMetrics
from caudal.messaging.notify import Note, Notifier
from caudal.messaging.records import outbound_records
from caudal.messaging.settings import MessagingSettings

log = logs.get("router")

KNOWN = "select id from caudal.message where id = any($1::uuid[])"

# These messages, and what waits in their conversations or in those that somebody joined, as far as they have
# not been routed. Locked: two routers that have the same message (one has lost its partition and does not
# know) do it once.
OPEN = """
select m.id from caudal.message m
where m.routed_at is null and (m.id = any($1::uuid[]) or m.id in (
  select w.id from caudal.message w
  where w.waiting and w.conversation_id in (
    select m.conversation_id from caudal.message m where m.id = any($1::uuid[])
    union
    select c.id from unnest($2::text[], $3::text[]) j(tenant, name)
    join caudal.tenant t on t.name = j.tenant
    join caudal.conversation c on c.tenant_id = t.id and c.name = j.name)))
order by m.id for no key update
"""


class Router:
    """Handles batches of the topic `messages`; give `handle` to a `BatchWorker`."""

    def __init__(
        self, log: EventLog, notifier: Notifier, settings: MessagingSettings, metrics: RouterMetrics
    ) -> None:
        self._log = log
        self._notifier = notifier
        self._expiry = timedelta(hours=settings.delivery_expiry_hours)
        self._metrics = metrics

    async def handle(self, records: list[Record], connection: Connection) -> AfterCommit:
        """Route a batch within the caller's transaction. Raises Poison for a record that makes no sense."""
        started = time.perf_counter()
        messages, joined = _sort(records)
        ids = [message.message_id for message in messages]
        known = {str(row["id"]) for row in await connection.fetch(KNOWN, ids)}
        for message in messages:
            if message.message_id not in known:
                self._metrics.failed.labels("unknown_message").inc()
                raise Poison("unknown_message", "No such message was accepted here.", tenant=message.tenant)
        tenants, names = [j.tenant for j in joined], [j.conversation_id for j in joined]
        open_ids = [row["id"] for row in await connection.fetch(OPEN, ids, tenants, names)]
        deliveries = await connection.fetch(
            "select * from caudal.route_messages($1, $2)", open_ids, self._expiry
        )
        audience = await connection.fetch(
            "select * from caudal.message_audience(array(select id from caudal.message"
            " where id = any($1) and routed_at is not null))",
            open_ids,
        )
        notes = [Note(row["tenant_id"], row["user_id"], row["message_id"]) for row in audience]
        await notify.publish(connection, notes)
        out = await outbound_records(connection, [row["delivery_id"] for row in deliveries])
        await self._log.publish(out, connection)

        def after() -> None:
            self._log.announce(*{record.topic for record in out})
            self._notifier.announce({(note.tenant_id, note.user_id) for note in notes})
            self._metrics.processed.labels("routed").inc(len(messages))
            for row in deliveries:
                self._metrics.deliveries.labels(row["channel"]).inc()
            took = time.perf_counter() - started
            for message in messages:
                self._metrics.seconds.observe(took)
                if tracing.on:
                    about = {
                        "tenant": message.tenant, "message_id": message.message_id, "batch": len(messages)
                    }  # fmt: skip
                    trace = tracing.of_message(message.message_id)
                    tracing.record("route", took, about, trace=trace, kind="consumer")

        return after


def _sort(records: Sequence[Record]) -> tuple[list[topics.MessageRecord], list[topics.JoinRecord]]:
    messages: list[topics.MessageRecord] = []
    joined: list[topics.JoinRecord] = []
    for record in records:
        try:
            item = msgspec.json.decode(record.value, type=topics.Event)
            if item.event_type == topics.PARTICIPANT_JOINED:
                joined.append(msgspec.json.decode(record.value, type=topics.JoinRecord))
                continue
            message = msgspec.json.decode(record.value, type=topics.MessageRecord)
            UUID(message.message_id)
        except (msgspec.DecodeError, ValueError) as error:
            raise Poison("not_a_message", f"The record is no message: {error}"[:400]) from error
        messages.append(message)
    return messages, joined


class StatusConsumer:
    """Applies statuses that others put on `status-updates`; ours are applied before they get there.

    Give `handle` to a `BatchWorker`.
    """

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def handle(self, records: list[Record], connection: Connection) -> AfterCommit:
        """Apply a batch within the caller's transaction. Raises Poison for a record that makes no sense."""
        foreign = []
        for record in records:
            try:
                status = msgspec.json.decode(record.value, type=topics.StatusRecord)
                UUID(status.message_id)
            except (msgspec.DecodeError, ValueError) as error:
                raise Poison("not_a_status", f"The record is no status: {error}"[:400]) from error
            if status.status not in STATE:
                raise Poison("not_a_status", "Its status is not SENT, DELIVERED, READ or FAILED.")
            if status.delivery_id is None:
                foreign.append(status)
        return await self._deliveries.statuses_in(connection, foreign)
