"""Composition root of a router process: messages in, deliveries out, and what must be done again later."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import asyncpg

from caudal.app.messaging import ROLE, open_log
from caudal.app.operations import serve_operations
from caudal.app.part import Starter
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Consumer, EventLog
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.worker import PASSING, BatchWorker
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.messaging import topics
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.metrics import RouterMetrics
from caudal.messaging.notify import Notifier
from caudal.messaging.router import Router, StatusConsumer
from caudal.messaging.settings import MessagingSettings
from caudal.web.health import Health
from caudal.web.settings import WebSettings

log = logs.get("router")

# What waits for a time is looked at this often, in seconds.
RELEASE, STUCK, EXPIRE, TRIM, FORGET = 0.25, 10.0, 5.0, 10.0, 3600.0
POOL_MAX = 8

FORGET_NOTIFICATIONS = "delete from caudal.notification where created_at < now() - $1::interval"
FORGET_RECEIPTS = "delete from caudal.early_receipt where received < now() - interval '30 days'"


async def every(seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` every so often; a database that is away for a while only delays it."""
    while True:
        try:
            await work()
        except PASSING as error:
            log.warning("will be tried again", work=what, error=repr(error))
        await asyncio.sleep(seconds)


async def parts(
    life: Lifecycle, url: str, log_settings: LogSettings, settings: MessagingSettings, metrics: Metrics
) -> tuple[asyncpg.Pool[Any], EventLog]:
    """Start one router as parts of `life`; its pool and its log."""
    pool: asyncpg.Pool[Any] = await db.open_pool(
        url, minimum=2, maximum=POOL_MAX, role=ROLE, name="caudal router"
    )
    life.on_stop("router database pool", pool.close)
    event_log = await open_log(life, pool, url, log_settings, consume=True)
    notifier = Notifier(pool)
    life.on_stop("notifier", notifier.stop)
    deliveries = Deliveries(pool, event_log, notifier, settings)
    router_metrics, log_metrics = RouterMetrics(metrics), LogMetrics(metrics)
    router = Router(event_log, notifier, settings, router_metrics)

    messages = await _consume(life, event_log, topics.MESSAGES, topics.ROUTER_GROUP)
    statuses = await _consume(life, event_log, topics.STATUS_UPDATES, topics.STATUS_GROUP)
    worker = BatchWorker(pool, messages, router.handle, log_metrics, batch=settings.router_batch)
    status_worker = BatchWorker(pool, statuses, StatusConsumer(deliveries).handle, log_metrics)
    life.spawn("router", worker.run())
    life.spawn("status updates", status_worker.run())
    life.spawn("lag of messages", log_metrics.watch(messages))
    life.spawn("lag of status updates", log_metrics.watch(statuses))
    life.spawn("lag of the relay", log_metrics.watch_relay(event_log))

    async def release() -> None:
        router_metrics.released.inc(await deliveries.release_due())

    async def forget() -> None:
        await pool.execute(FORGET_NOTIFICATIONS, timedelta(days=settings.notification_keep_days))
        await pool.execute(FORGET_RECEIPTS)

    life.spawn("release", every(RELEASE, "release", release))
    life.spawn("stuck", every(STUCK, "release of stuck", lambda: deliveries.release_due(stuck=True)))
    life.spawn("expiry", every(EXPIRE, "expiry", deliveries.expire))
    life.spawn("forget", every(FORGET, "forgetting", forget))
    # With Kafka the PostgreSQL log is what publishers write to, on its way there.
    outbox = event_log if isinstance(event_log, PostgresLog) else PostgresLog(pool, url, log_settings)
    life.spawn("trim", every(TRIM, "trimming the log", outbox.trim))
    return pool, event_log


async def _consume(life: Lifecycle, event_log: EventLog, topic: str, group: str) -> Consumer:
    consumer = await event_log.subscribe([topic], group)
    life.on_stop(f"consumer of {topic}", consumer.close)
    return consumer


def starter(environ: Mapping[str, str] = os.environ) -> Starter:
    """`caudal router`: a router as a process of its own, all settings from `environ`."""
    database = db.url_of(environ)
    log_settings = load(LogSettings, environ)
    settings = load(MessagingSettings, environ)
    web = load(WebSettings, environ)

    async def start(life: Lifecycle) -> dict[str, str]:
        metrics = Metrics()
        pool, event_log = await parts(life, database, log_settings, settings, metrics)
        health = Health(pool)
        health.add("log", event_log.ping)
        server = await serve_operations(life, metrics, health, web.api_host, settings.router_metrics_port)
        endpoints = {"router_metrics_url": address("http", web.api_host, server.port, "/actuator/prometheus")}
        await announce(life, environ, endpoints)
        log.info("the router is ready", log=log_settings.log, **endpoints)
        return endpoints

    return start
