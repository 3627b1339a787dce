"""From an outbound record to the provider and back: limits, intent, one call, its outcome.

The order is what keeps the promises. The intent is committed before the call, so that a crash leaves a trace;
the outcome after it; and what was asked and not answered is never asked again, but settled by its receipts.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import asyncpg
import msgspec

from caudal.core import logs, tracing
from caudal.core.eventlog.port import Poison, Record
from caudal.core.eventlog.worker import is_passing, pause
from caudal.core.metrics import Metrics
from caudal.messaging.accounts import ChannelAccounts
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.deliveries import Deliveries, Failed, Intent, Sent, Unknown
from caudal.messaging.deliveries import Verdict as Decision
from caudal.messaging.limits import Breaker, Breakers, Limits, Turn
from caudal.messaging.provider import (
    Accepted,
    Account,
    Attachment,
    Connector,
    Message,
    ProviderError,
    Template,
    Verdict,
)
from caudal.messaging.topics import OutboundRecord

log = logs.get("connector")
DAY = 86_400.0
# How soon after its tenant may work again a message goes out.
SUSPENDED_SECONDS = 60.0
REMEMBER = """
insert into caudal.channel_contact as c (tenant_id, account_id, address, contact) values ($1, $2, $3, $4)
on conflict (account_id, address) do update set contact = excluded.contact
where c.contact is distinct from excluded.contact
"""


class SendingMetrics:
    """What a connector process counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.sent = metrics.counter(
            "messages_sent", "Deliveries by how their call ended", "channel", "status"
        )
        self.seconds = metrics.histogram(
            "connector_api_duration_seconds", "Seconds of a call to the provider", "channel"
        )


class Sender:
    """The handler of one connector's lanes. `handle` is given records of one conversation in order."""

    def __init__(
        self,
        name: str,
        connector: Connector,
        pool: asyncpg.Pool[Any],
        accounts: ChannelAccounts,
        deliveries: Deliveries,
        settings: SendingSettings,
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._connector = connector
        self._pool = pool
        self._accounts = accounts
        self._deliveries = deliveries
        self._settings = settings
        self._metrics = SendingMetrics(metrics)
        self._limits = Limits(
            pool, patience=settings.connector_patience, operator_pause=settings.connector_operator_pause
        )
        self.breakers = Breakers(
            metrics, [name], failures=settings.breaker_failures, seconds=settings.breaker_seconds
        )
        self._calls: set[asyncio.Task[bool]] = set()

    async def handle(self, record: Record) -> None:
        """Work on one outbound record until nothing is left to do for it now. Raises Poison."""
        out = _read(record)
        account = await self._accounts.choose(self._pool, out.tenant or "", out.channel, out.address)
        if account is None:
            sentence = f"Nobody has set up {out.channel} for this tenant: caudal connector add."
            await self._give_up(out, "no_account", sentence)
            return
        if account.suspended:
            sentence = "The account is suspended; this goes out when it no longer is."
            await self._hold(out, SUSPENDED_SECONDS, "suspended", sentence)
            return
        breaker = self.breakers.of(self._name, account.id)
        if wait := breaker.admit():
            sentence = "The provider does not answer at present; this goes out when it does."
            await self._hold(out, wait, "provider_down", sentence)
            return
        used = False
        try:
            used = await self._in_turn(out, account, breaker)
        finally:
            if not used:
                breaker.unused()

    async def _in_turn(self, out: OutboundRecord, account: Account, breaker: Breaker) -> bool:
        media = out.file_id is not None
        turn = await self._limits.take(account, out.address, media=media)
        if not turn.taken:
            await self._hold(out, turn.wait, "rate_limit", "It waits for its turn at the provider.")
            return False
        if turn.wait > 0:
            await asyncio.sleep(turn.wait)
        try:
            message = _message(out, account, turn)
        except ProviderError as error:
            await self._limits.give_back(account, out.address, media=media)
            await self._give_up(out, error.provider_code, error.sentence)
            return False
        # A process that stops lets its calls end: one cut off in between would be unknown for nothing.
        call = asyncio.create_task(
            self._intend_and_call(out, account, breaker, turn, message), name=f"call {self._name}"
        )
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def drain(self) -> None:
        """Wait for the calls under way; for a process that stops."""
        if self._calls:
            await asyncio.wait(self._calls)

    async def _intend_and_call(
        self, out: OutboundRecord, account: Account, breaker: Breaker, turn: Turn, message: Message
    ) -> bool:
        intent = await self._deliveries.record_intent(out.delivery_id, account.provider_account)
        if intent.verdict is not Decision.CALL:
            await self._limits.give_back(account, out.address, media=out.file_id is not None)
            return False
        message.reference = f"{out.delivery_id}.{intent.attempt}"
        await self._call(out, account, breaker, turn, intent, message)
        return True

    async def _call(
        self,
        out: OutboundRecord,
        account: Account,
        breaker: Breaker,
        turn: Turn,
        intent: Intent,
        message: Message,
    ) -> None:
        try:
            accepted = await self._ask(out, account, message)
        except ProviderError as error:
            if (
                error.verdict is Verdict.WRITE_FIRST
                and account.template
                and message.attachment is None
                and not message.template
            ):
                # The provider knows more of the window than we do; a template is what it asks for.
                message.template = _filled(account.template, message.text)
                await self._call(out, account, breaker, turn, intent, message)
                return
            await self._refused(out, account, breaker, intent, error)
        except Exception as error:
            log.exception("a connector failed", connector=self._name, delivery=out.delivery_id)
            breaker.failed()
            await self._settle(out, intent, Unknown(f"Our own connector failed: {type(error).__name__}."))
        else:
            breaker.succeeded()
            await self._settle(out, intent, Sent(accepted.provider_id or None))
            await self._learn(out, account, turn, accepted)

    async def _ask(self, out: OutboundRecord, account: Account, message: Message) -> Accepted:
        started = perf_counter()
        failed: str | None = "cut off"
        try:
            accepted = await self._connector.send(account, message)
            failed = None
            return accepted
        except ProviderError as error:
            failed = f"{error.verdict.value}: {error.provider_code}"
            raise
        finally:
            took = perf_counter() - started
            self._metrics.seconds.labels(self._name).observe(took)
            if tracing.on:
                about = {
                    "tenant": out.tenant, "message_id": out.message_id, "delivery_id": out.delivery_id,
                    "channel": out.channel, "connector": self._name,
                }  # fmt: skip
                trace = tracing.of_message(out.message_id)
                tracing.record("deliver", took, about, trace=trace, kind="client", failed=failed)

    async def _learn(self, out: OutboundRecord, account: Account, turn: Turn, accepted: Accepted) -> None:
        if turn.strikes:
            await self._limits.ease(account, out.address)
        await self._accounts.note_problem(self._pool, account, None)
        if accepted.contact and accepted.contact != turn.contact:
            try:
                await self._pool.execute(
                    REMEMBER, account.tenant_id, account.id, out.address, accepted.contact
                )
            except asyncpg.UniqueViolationError:
                # Two ways to write one number; replies go to the one we knew first.
                pass

    async def _refused(
        self, out: OutboundRecord, account: Account, breaker: Breaker, intent: Intent, error: ProviderError
    ) -> None:
        log.info(
            "the provider said no", connector=self._name, delivery=out.delivery_id, account=account.id,
            code=error.provider_code, verdict=error.verdict.value,
        )  # fmt: skip
        verdict = error.verdict
        if verdict in (Verdict.RETRY, Verdict.UNKNOWN):
            breaker.failed()
        else:
            breaker.succeeded()
        if verdict is Verdict.UNKNOWN:
            await self._settle(out, intent, Unknown(error.sentence))
        elif verdict in (Verdict.WRITE_FIRST, Verdict.REFUSED):
            code = "write_first" if verdict is Verdict.WRITE_FIRST else error.provider_code
            await self._settle(out, intent, Failed(code, error.sentence))
        elif verdict is Verdict.RETRY:
            wait = max(self._backoff(intent.attempt), error.retry_after or 0)
            await self._defer(out, intent, wait, error, called=True)
        else:
            if verdict is Verdict.OPERATOR:
                await self._accounts.note_problem(self._pool, account, error.sentence)
            wait = await self._limits.hold(account, out.address, verdict, error.retry_after)
            await self._defer(out, intent, wait, error, called=False)

    def _backoff(self, attempt: int) -> float:
        most = self._settings.connector_retry_most
        pause = min(self._settings.connector_retry_first * 2.0 ** min(attempt - 1, 30), most)
        # Spread out, so that what failed together does not come back together. No secret.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def _settle(self, out: OutboundRecord, intent: Intent, outcome: Sent | Failed | Unknown) -> None:
        attempt = 0
        while True:
            try:
                await self._deliveries.settle(out.delivery_id, intent.attempt, outcome)
                break
            except Exception as error:
                # Nobody but this task knows how the call ended. It outlives a database that is away.
                if not is_passing(error):
                    raise
                log.warning("an outcome waits for the database", delivery=out.delivery_id, error=repr(error))
                await asyncio.sleep(pause(attempt))
                attempt += 1
        self._metrics.sent.labels(self._name, type(outcome).__name__.lower()).inc()

    async def _defer(
        self, out: OutboundRecord, intent: Intent, wait: float, error: ProviderError, *, called: bool
    ) -> None:
        until = datetime.now(UTC) + timedelta(seconds=wait)
        waits = await self._deliveries.defer(
            out.delivery_id, intent.attempt, until, error.provider_code, error.sentence, called=called
        )
        self._metrics.sent.labels(self._name, "deferred" if waits else "failed").inc()

    async def _hold(self, out: OutboundRecord, wait: float, code: str, sentence: str) -> None:
        """Have it wait without having called anybody."""
        until = datetime.now(UTC) + timedelta(seconds=wait + random.uniform(0, 0.2))  # noqa: S311
        await self._deliveries.defer(out.delivery_id, None, until, code, sentence, called=False)

    async def _give_up(self, out: OutboundRecord, code: str, sentence: str) -> None:
        """Fail it without having called anybody."""
        intent = await self._deliveries.record_intent(out.delivery_id)
        if intent.verdict is Decision.CALL:
            await self._settle(out, intent, Failed(code, sentence))


def _read(record: Record) -> OutboundRecord:
    try:
        out = msgspec.json.decode(record.value, type=OutboundRecord)
    except msgspec.MsgspecError as error:
        raise Poison("unreadable", f"This is no outbound record: {error}.") from error
    if not out.tenant:
        raise Poison("no_tenant", "The record names no tenant.")
    return out


def _filled(template: Template, text: str) -> Template:
    return Template(name=template.name, language=template.language, words=[text])


def _message(out: OutboundRecord, account: Account, turn: Turn) -> Message:
    """What to send. Raises ProviderError when the window is known to be closed and there is no template."""
    made = Message(reference="", address=out.address, contact=turn.contact, text=out.content)
    if out.file_id is not None:
        about = out.file_metadata or {}
        made.attachment = Attachment(
            tenant=account.tenant,
            file_id=out.file_id,
            filename=str(about.get("filename") or out.file_id),
            content_type=str(about.get("content_type") or "application/octet-stream"),
            size=int(str(about.get("size_bytes") or 0)),
        )
    if turn.wrote_at is None or account.window_seconds is None:
        # What we know of a window is only what we were told; the provider knows all of it.
        return made
    silence = (datetime.now(UTC) - turn.wrote_at).total_seconds()
    if silence > account.window_seconds:
        if account.template is None:
            raise ProviderError(
                Verdict.WRITE_FIRST,
                "write_first",
                "The person must write first: their last message is too old, and there is no template.",
            )
        if made.attachment is not None:
            raise ProviderError(
                Verdict.WRITE_FIRST,
                "write_first",
                "The person must write first: their last message is too old, and a template carries no file.",
            )
        made.template = _filled(account.template, out.content)
    elif silence > DAY:
        made.human_agent = account.human_agent
    return made
