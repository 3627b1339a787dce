"""What processes of messaging are made of: the log that the settings name, and the services of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from caudal.core.eventlog.port import EventLog
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.settings import load
from caudal.messaging import topics
from caudal.messaging.accept import Acceptor
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.metrics import AcceptMetrics
from caudal.messaging.notify import Notifier
from caudal.messaging.settings import MessagingSettings

if TYPE_CHECKING:
    from caudal.app.api import ApiParts

# The role of routers and connectors: messaging's tables of every tenant, and nothing else.
ROLE = "caudal_messaging"


async def open_log(
    life: Lifecycle, pool: asyncpg.Pool[Any], url: str, settings: LogSettings, *, consume: bool
) -> EventLog:
    """The log that the settings name, started, with messaging's topics; closed by `life`.

    `consume` is false for a process that only publishes: it then needs neither Kafka nor a connection that
    listens, because publishing writes to PostgreSQL with either log.
    """
    log: EventLog
    if settings.log == "kafka" and consume:
        # Its client is a large library that a PostgreSQL installation never loads.
        from caudal.core.eventlog.kafka import KafkaLog

        log = KafkaLog(pool, url, settings)
    else:
        log = PostgresLog(pool, url, settings, listen=consume)
    await log.start()
    life.on_stop("log", log.stop)
    await log.ensure(topics.topics(settings.log_partitions))
    return log


async def deliveries_of(
    life: Lifecycle, pool: asyncpg.Pool[Any], url: str, environ: Mapping[str, str]
) -> Deliveries:
    """Deliveries for who only tells of them (sockets). `pool` runs as `caudal_messaging`."""
    log = await open_log(life, pool, url, load(LogSettings, environ), consume=False)
    notifier = Notifier(pool)
    life.on_stop("notifier", notifier.stop)
    return Deliveries(pool, log, notifier, load(MessagingSettings, environ))


async def bring(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process messaging's services, settings from the environment."""
    log_settings, settings = load(LogSettings, made.environ), load(MessagingSettings, made.environ)
    services = await api_services(life, made.pool, made.database_url, log_settings, settings, made.metrics)
    made.services.update(services)
    event_log = services["event_log"]
    assert isinstance(event_log, PostgresLog)
    made.health.add("log", event_log.ping)


async def api_services(
    life: Lifecycle,
    pool: asyncpg.Pool[Any],
    url: str,
    log_settings: LogSettings,
    settings: MessagingSettings,
    metrics: Metrics,
) -> Mapping[str, object]:
    """The services that the messaging routes need. `pool` runs as `caudal_app`."""
    log = await open_log(life, pool, url, log_settings, consume=False)
    notifier = Notifier(pool)
    life.on_stop("notifier", notifier.stop)
    acceptor = Acceptor(pool, log, settings, AcceptMetrics(metrics))
    life.on_stop("accept", acceptor.stop)
    return {
        "event_log": log,
        "notifier": notifier,
        "acceptor": acceptor,
        "deliveries": Deliveries(pool, log, notifier, settings),
    }
