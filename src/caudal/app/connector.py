"""Composition root of a connector's process: its outbound lanes, its webhooks, its metrics and health."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from caudal.app.files import media
from caudal.app.messaging import ROLE, open_log
from caudal.app.operations import serve_operations
from caudal.app.part import Starter
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.eventlog.metrics import LogMetrics
from caudal.core.eventlog.port import Consumer, EventLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.eventlog.worker import LaneWorker
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.messaging import connectors, topics, webhooks
from caudal.messaging.accounts import ChannelAccounts
from caudal.messaging.breaker_board import BreakerBoard
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.notify import Notifier
from caudal.messaging.provider import Files
from caudal.messaging.sending import Sender
from caudal.messaging.settings import MessagingSettings
from caudal.registry.settings import PeopleSettings, sealer_of
from caudal.web.health import Health
from caudal.web.settings import WebSettings

log = logs.get("connector")
GROUPS = {
    "whatsapp": (topics.WHATSAPP_OUTBOUND, topics.WHATSAPP_GROUP),
    "instagram": (topics.INSTAGRAM_OUTBOUND, topics.INSTAGRAM_GROUP),
}


class ConnectorParts(msgspec.Struct, dict=True):
    """What a connector's process is made of. `files` is None where there is no file store."""

    pool: Any
    log: Any
    accounts: ChannelAccounts
    deliveries: Deliveries
    metrics: Metrics
    settings: SendingSettings
    files: Any = None


async def run_connector(life: Lifecycle, name: str, made: ConnectorParts) -> None:
    """Start the lanes of connector `name` as parts of `life`: outbound, and webhooks where it has them."""
    files: Files | None = made.files
    connector = connectors.make(name, made.settings.connector(name), files)
    life.on_stop(f"{name} connections", connector.close)
    log_metrics = LogMetrics(made.metrics)
    settings = made.settings
    if name in GROUPS:
        worker = webhooks.WebhookWorker(
            name, connector, made.pool, made.log, made.accounts, made.deliveries, files, made.metrics
        )
        consumer = await _join(life, made, webhooks.topic(name), webhooks.group(name), log_metrics)
        lanes = LaneWorker(
            made.pool, consumer, worker.handle, log_metrics, concurrency=settings.webhook_concurrency
        )
        life.spawn(f"{name} webhook lanes", lanes.run())
    sender = Sender(name, connector, made.pool, made.accounts, made.deliveries, settings, made.metrics)
    board = BreakerBoard(made.pool, f"{name} {socket.gethostname()}:{os.getpid()}", sender.breakers)
    life.on_stop(f"{name} breakers shown", board.withdraw)
    life.spawn(f"{name} breaker board", board.run())
    topic, group = GROUPS.get(name, (topics.APPRISE_OUTBOUND, topics.APPRISE_GROUP))
    consumer = await _join(life, made, topic, group, log_metrics)
    # Stopped in reverse: no more lanes, then the calls under way end, and only then may others have our
    # partitions; else they would take those calls for a dead worker's.
    life.on_stop(f"{name} calls", sender.drain)
    lanes = LaneWorker(
        made.pool, consumer, sender.handle, log_metrics, concurrency=settings.connector_concurrency
    )
    life.spawn(f"{name} lanes", lanes.run())
    life.spawn(f"{name} lag of the relay", log_metrics.watch_relay(made.log))


async def _join(
    life: Lifecycle, made: ConnectorParts, topic: str, group: str, log_metrics: LogMetrics
) -> Consumer:
    event_log: EventLog = made.log
    consumer = await event_log.subscribe([topic], group)
    life.on_stop(f"{topic} consumer", consumer.close)
    life.spawn(f"{topic} lag", log_metrics.watch(consumer))
    return consumer


async def parts(
    life: Lifecycle, url: str, environ: Mapping[str, str], metrics: Metrics, *, name: str
) -> ConnectorParts:
    """Open what a connector needs, to be closed by `life`."""
    settings = load(SendingSettings, environ)
    log_settings = load(LogSettings, environ)
    # Every lane may be in a transaction at once, and so may every webhook; they are short.
    most = max(load(db.DatabaseSettings, environ).db_pool_max, 12)
    pool: asyncpg.Pool[Any] = await db.open_pool(
        url, minimum=2, maximum=most, role=ROLE, name=f"caudal connector {name}"
    )
    life.on_stop("connector pool", pool.close)
    event_log = await open_log(life, pool, url, log_settings, consume=True)
    notifier = Notifier(pool)
    life.on_stop("notifier", notifier.stop)
    deliveries = Deliveries(pool, event_log, notifier, load(MessagingSettings, environ))
    sealer = sealer_of(load(PeopleSettings, environ))
    files = media(pool, environ, sealer, metrics)
    return ConnectorParts(pool, event_log, ChannelAccounts(sealer), deliveries, metrics, settings, files)


def starter(name: str, environ: Mapping[str, str] = os.environ) -> Starter:
    """`caudal connector run NAME`: one connector as a process of its own."""

    async def start(life: Lifecycle) -> dict[str, str]:
        metrics = Metrics()
        made = await parts(life, db.url_of(environ), environ, metrics, name=name)
        health = Health(made.pool)
        health.add("log", made.log.ping)
        web = load(WebSettings, environ)
        server = await serve_operations(life, metrics, health, web.api_host, made.settings.metrics_port(name))
        await run_connector(life, name, made)
        endpoints = {
            f"{name}_metrics_url": address("http", web.api_host, server.port, "/actuator/prometheus")
        }
        await announce(life, environ, endpoints)
        log.info("the connector is ready", connector=name, **endpoints)
        return endpoints

    return start
