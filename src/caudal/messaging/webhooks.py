"""Webhooks in: verified, appended to the log, answered; worked on afterwards, each thing once.

`Webhooks` is the API's half: it checks the signature over the raw bytes and puts each event on the log under
the person's key, so that one person's events stay in order. `WebhookWorker` is the connector's half.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from caudal.core.eventlog.port import Connection, EventLog, Outgoing, Poison, Record
from caudal.core.metrics import Metrics
from caudal.messaging import deliveries, inbound
from caudal.messaging.accounts import ChannelAccounts
from caudal.messaging.addresses import spelled
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.lattice import State
from caudal.messaging.provider import (
    Account,
    Connector,
    Echo,
    Event,
    Files,
    Inbound,
    ProviderError,
    Receipt,
    Strange,
    Verdict,
)

log = logs.get("webhooks")
CHANNELS = ("whatsapp", "instagram")
LARGEST = 3 * 1024 * 1024

ONCE = """
insert into caudal.inbound_event(tenant_id, channel, provider_account, provider_id) values ($1, $2, $3, $4)
on conflict do nothing returning true
"""
SEEN = """
select true from caudal.inbound_event
where tenant_id = $1 and channel = $2 and provider_account = $3 and provider_id = $4
"""
ADDRESS = "select address from caudal.channel_contact where account_id = $1 and contact = $2"
WROTE = """
insert into caudal.channel_contact as c (tenant_id, account_id, address, contact, name, wrote_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (account_id, address) do update set contact = excluded.contact,
  name = coalesce(excluded.name, c.name), wrote_at = greatest(c.wrote_at, excluded.wrote_at)
"""
# A message that we asked for and heard nothing of, and whose text the provider now shows us.
UNANSWERED = """
select d.id, d.attempt from caudal.delivery d join caudal.message m on m.id = d.message_id
where d.tenant_id = $1 and d.channel = $2 and d.address = $3 and d.state in ('sending', 'unknown')
  and m.content = $4
  and not exists (select from caudal.provider_reference r
                  where r.tenant_id = $1 and r.channel = $2 and r.provider_id = $5)
order by d.id limit 1
"""
# Reading a message is reading what was sent before it.
BEFORE = """
select d.id, d.attempt, d.provider_id from caudal.provider_reference r
join caudal.delivery last on last.id = r.delivery_id
join caudal.delivery d
  on d.tenant_id = last.tenant_id and d.channel = last.channel and d.address = last.address
where r.tenant_id = $1 and r.channel = $2 and r.provider_id = $3
  and d.id < last.id and d.state in ('sent', 'delivered') and d.provider_id is not null
order by d.id desc limit 200
"""


def topic(channel: str) -> str:
    """Where the webhooks of `channel` wait for their worker."""
    return f"{channel}-webhooks"


def group(channel: str) -> str:
    """The consumer group that works on them."""
    return f"{channel}-webhook-group"


class WebhookRecord(msgspec.Struct, kw_only=True):
    """On `…-webhooks`: one event, or what nobody could read, and through whose address it came."""

    tenant: str
    tenant_id: int
    channel: str
    event: Event | None = None
    unreadable: str | None = None


class Webhooks:
    """The API's half. `connectors` are used for reading only."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        event_log: EventLog,
        accounts: ChannelAccounts,
        connectors: dict[str, Connector],
    ) -> None:
        self._pool = pool
        self._log = event_log
        self._accounts = accounts
        self._connectors = connectors

    async def _account(self, channel: str, hook: UUID) -> Account:
        account = await self._accounts.by_hook(self._pool, hook)
        if account is None or account.channel != channel or channel not in self._connectors:
            raise NotFound("There is no such webhook.")
        return account

    async def verify(self, channel: str, hook: UUID, mode: str, token: str, challenge: str) -> str:
        """The handshake: returns the challenge to whoever knows the token. Raises NotFound, Forbidden."""
        account = await self._account(channel, hook)
        if mode != "subscribe" or not hmac.compare_digest(
            token.encode(), account.secrets.verify_token.encode()
        ):
            raise Forbidden("The verify token is not this account's.")
        return challenge

    async def receive(self, channel: str, hook: UUID, body: bytes, signature: str) -> int:
        """Keep what the provider says; returns how many events. Durable on return.

        Raises NotFound, and Unauthenticated when the signature is not the provider's.
        """
        account = await self._account(channel, hook)
        wanted = hmac.new(account.secrets.app_secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature.encode(), f"sha256={wanted}".encode()):
            raise Unauthenticated("The signature is not this account's.")
        records = [
            Outgoing(topic(channel), key, msgspec.json.encode(record))
            for key, record in self._records(account, body)
        ]
        await self._log.publish(records)
        return len(records)

    def _records(self, account: Account, body: bytes) -> list[tuple[str, WebhookRecord]]:
        try:
            events = self._connectors[account.channel].read_webhook(body)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            # It is the provider's word all the same: kept, and shown with the dead letters.
            text = body[:LARGEST].decode("utf-8", "replace")
            return [(account.provider_account, _record(account, unreadable=text))]
        return [(f"{event.account}:{event.contact}", _record(account, event)) for event in events]


def _record(account: Account, event: Event | None = None, unreadable: str | None = None) -> WebhookRecord:
    return WebhookRecord(
        tenant=account.tenant,
        tenant_id=account.tenant_id,
        channel=account.channel,
        event=event,
        unreadable=unreadable,
    )


class WebhookWorker:
    """The connector's half: the handler of a lane for each person."""

    def __init__(
        self,
        channel: str,
        connector: Connector,
        pool: asyncpg.Pool[Any],
        event_log: EventLog,
        accounts: ChannelAccounts,
        delivered: Deliveries,
        files: Files | None,
        metrics: Metrics,
    ) -> None:
        self._channel = channel
        self._connector = connector
        self._pool = pool
        self._log = event_log
        self._accounts = accounts
        self._deliveries = delivered
        self._files = files
        self._events = metrics.counter(
            "webhook_events", "Events that providers sent us", "channel", "kind", "outcome"
        )

    async def handle(self, record: Record) -> None:
        """Work on one event. Raises Poison for what never will be."""
        try:
            work = msgspec.json.decode(record.value, type=WebhookRecord)
        except msgspec.MsgspecError as error:
            raise Poison("unreadable", f"This is no webhook record: {error}.") from error
        event = work.event
        if event is None:
            raise Poison("unreadable", f"{work.channel} sent what we do not understand.", tenant=work.tenant)
        if isinstance(event, Strange):
            raise Poison(
                "unreadable", f"{work.channel} sent an event of an unknown kind.", tenant=work.tenant
            )
        account = await self._accounts.by_provider(self._pool, work.tenant, work.channel, event.account)
        if account is None:
            sentence = f"{work.channel} {event.account} is not set up for this tenant."
            raise Poison("unknown_account", sentence, tenant=work.tenant)
        kind = type(event).__name__.lower()
        if isinstance(event, Receipt):
            outcome = await self._receipt(account, event)
        elif isinstance(event, Echo):
            outcome = await self._echo(account, event)
        else:
            outcome = await self._inbound(account, event)
        self._events.labels(self._channel, kind, outcome).inc()

    # -- what became of our own

    async def _receipt(self, account: Account, event: Receipt) -> str:
        delivery_id, attempt = _reference(event.reference)
        receipt = deliveries.Receipt(
            account.tenant_id, account.channel, event.provider_id, State(event.state), _time(event.at),
            event.reason_code, event.reason, delivery_id, attempt,
        )  # fmt: skip
        receipts = [receipt]
        if event.everything_before:
            rows = await self._pool.fetch(BEFORE, account.tenant_id, account.channel, event.provider_id)
            receipts += [
                receipt._replace(
                    provider_id=row["provider_id"], delivery_id=row["id"], attempt=row["attempt"]
                )
                for row in rows
            ]
        await self._deliveries.apply_receipts(receipts)
        return event.state

    async def _echo(self, account: Account, event: Echo) -> str:
        delivery_id, attempt = _reference(event.reference)
        if delivery_id is None:
            address = await self._pool.fetchval(ADDRESS, account.id, event.contact)
            row = await self._pool.fetchrow(
                UNANSWERED, account.tenant_id, account.channel, address, event.text, event.provider_id
            )
            if row is None:
                return "known"
            delivery_id, attempt = row["id"], row["attempt"]
        receipt = deliveries.Receipt(
            account.tenant_id, account.channel, event.provider_id, State.SENT, _time(event.at),
            delivery_id=delivery_id, attempt=attempt,
        )  # fmt: skip
        await self._deliveries.apply_receipts([receipt])
        return "sent"

    # -- what people write

    async def _inbound(self, account: Account, event: Inbound) -> str:
        key = (account.tenant_id, account.channel, account.provider_account, event.provider_id)
        # Before anything is fetched for it; the transaction below decides.
        if await self._pool.fetchval(SEEN, *key):
            return "repeated"
        address = await self._address(account, event)
        file_id, content = await self._content(account, address, event)
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(ONCE, *key):
                return "repeated"
            after = await self._store(connection, account, address, event, content, file_id)
        after()
        return "stored"

    async def _store(
        self,
        connection: Connection,
        account: Account,
        address: str,
        event: Inbound,
        content: str,
        file_id: UUID | None,
    ) -> Callable[[], None]:
        at = _time(event.at)
        await connection.execute(WROTE, account.tenant_id, account.id, address, event.contact, event.name, at)
        message = inbound.Inbound(
            account.tenant_id, account.channel, address, event.provider_id, content, at, file_id
        )
        _, after = await inbound.receive(connection, self._log, [message])
        return after

    async def _address(self, account: Account, event: Inbound) -> str:
        known: str | None = await self._pool.fetchval(ADDRESS, account.id, event.contact)
        if known is not None:
            return known
        try:
            return spelled(account.channel, await self._connector.address(account, event.contact))
        except ProviderError as error:
            if error.verdict is Verdict.REFUSED:
                # Somebody without a name; the provider's id is one as well, and answers reach it.
                return f"@{event.contact}"
            raise Unavailable(error.sentence) from error

    async def _content(self, account: Account, address: str, event: Inbound) -> tuple[UUID | None, str]:
        text = event.text.replace("\0", "")
        if event.media_id is None and event.media_link is None:
            return None, text if text.strip() else "[empty]"
        noted = f"[{(event.content_type or 'file').split(';')[0]}] {event.filename or ''}".strip()
        if self._files is None:
            return None, f"{noted} {text}".strip()
        try:
            found = await self._connector.download(account, event)
            party = f"{account.channel}:{address}"
            name = event.filename or f"{event.provider_id[-12:]}"
            file_id = await self._files.store(account.tenant, party, name, found.content_type, found.data)
        except ProviderError as error:
            if error.verdict is Verdict.REFUSED:
                return None, f"{noted} {text}".strip()
            raise Unavailable(error.sentence) from error
        return file_id, text if text.strip() else noted


def _reference(text: str | None) -> tuple[int | None, int | None]:
    """The delivery and attempt in what we had sent along; nothing when it is not ours."""
    head, dot, tail = (text or "").partition(".")
    if dot and head.isascii() and head.isdigit() and tail.isascii() and tail.isdigit() and len(head) < 19:
        return int(head), min(int(tail[:9]), 2**31 - 1)
    return None, None


def _time(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds > 0 else datetime.now(UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.now(UTC)
