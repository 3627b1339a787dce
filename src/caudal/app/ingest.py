"""The ingest process: its doors (endpoint or subscriber), the pipeline, the writers."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg

from caudal.app.doors import IngestParts, open_endpoint, open_subscriber
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics, MetricsServer
from caudal.core.notifications import listen_for_ever
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.insight.live import WATCHED, Publisher
from caudal.insight.raw import Tap
from caudal.mqtt.ports import ConnectInfo, Principal
from caudal.registry.access import AccessSettings
from caudal.registry.directory import Directory, DirectorySettings
from caudal.registry.presence import Presence
from caudal.telemetry.metrics import IngestMetrics
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import DoorSettings, IngestSettings
from caudal.telemetry.storage import Writer
from caudal.telemetry.topics import topic_table

log = logs.get("ingest")

ROLE = "caudal_ingest"


class OpenHooks:
    """Lets everybody in and do everything: for loopback and development."""

    async def authenticate(self, info: ConnectInfo) -> Principal | int:
        return Principal(info.username or info.client_id or "anonymous")

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return True

    def may_subscribe(self, principal: Principal, pattern: str) -> bool:
        return True

    def connected(self, principal: Principal, client_id: str, when: int) -> None: ...

    def disconnected(self, principal: Principal, client_id: str, when: int, reason: int) -> None: ...


async def build_pipeline(
    life: Lifecycle, url: str, settings: IngestSettings, metrics: Metrics, *, worker: str
) -> Pipeline:
    """A running pipeline on the database at `url`; `life` owns its tasks and connections."""
    return (await build(life, url, settings, metrics, worker=worker)).pipeline


async def build(
    life: Lifecycle, url: str, settings: IngestSettings, metrics: Metrics, *, worker: str, pool_max: int = 8
) -> IngestParts:
    """A running pipeline and what its doors need. `pool_max` connections in all, the writers' included."""
    most = max(2, pool_max - settings.ingest_writers)
    pool = await db.open_pool(url, minimum=1, maximum=most, role=ROLE, name=f"caudal ingest {worker}")
    life.on_stop("ingest pool", pool.close)
    directory = Directory(pool, DirectorySettings(unknown_tenants=settings.unknown_tenants))

    async def connect() -> asyncpg.Connection[Any]:
        # No command time-out: a COPY that waits for a slow disk is not an error, and giving up on it would
        # only send the same rows again.
        return await asyncpg.connect(
            url, timeout=10,
            server_settings={"application_name": f"caudal ingest {worker}", "role": ROLE, **db.SESSION},
        )  # fmt: skip

    days: set[int] = set()
    express = Writer(connect, f"{worker}/express", known_days=days)
    writers = [
        express,
        *(
            Writer(connect, f"{worker}/{number}", known_days=days)
            for number in range(settings.ingest_writers)
        ),
    ]
    ingest_metrics = IngestMetrics(metrics)
    presence = Presence(pool)

    pipeline = Pipeline(directory, topic_table(settings.topic_templates), settings, ingest_metrics)
    pipeline.on_commit(lambda batch: presence.hear(batch.heard, batch.gateways))
    live = Publisher(pool)
    pipeline.on_commit(live.committed)
    tap = Tap(pool)
    pipeline.on_commit(tap.committed)
    ingest_metrics.watch(lambda: pipeline.messages)
    life.on_stop("last heard", presence.close)
    life.spawn("presence", presence.run())
    life.spawn("live watch", live.watch())
    life.spawn("live values", live.tell())
    life.spawn("raw watch", tap.watch())
    life.spawn("raw messages", tap.keep())

    def watched(_: str = "") -> None:
        live.changed()
        tap.changed()

    def forget_all() -> None:
        directory.forget_all()
        watched()

    channels: dict[str, Callable[[str], None]] = {"caudal_registry": directory.forget, WATCHED: watched}
    life.spawn("registry listener", listen_for_ever(connect, channels, on_gap=forget_all))
    for writer in writers:
        life.on_stop(f"connection of {writer.name}", writer.close)
        life.spawn(f"writer {writer.name}", pipeline.write_for_ever(writer, express=writer is express))
    life.spawn("resolver", pipeline.resolve_for_ever())
    return IngestParts(pipeline, pool, connect, metrics)


async def start(
    life: Lifecycle, environ: Mapping[str, str] = os.environ, *, worker: str | None = None
) -> None:
    """Start ingest as the environment says."""
    settings = load(IngestSettings, environ)
    doors = load(DoorSettings, environ)
    access = load(AccessSettings, environ)
    database = load(db.DatabaseSettings, environ)
    url = db.url_of(environ)
    db.check(url)
    topic_table(settings.topic_templates)  # said before anything is opened, should it make no sense
    worker = worker or f"{socket.gethostname()}:{os.getpid()}"
    metrics = Metrics()
    server = MetricsServer.start(metrics, doors.metrics_port, doors.metrics_host)
    life.on_stop("metrics", server.stop)
    made = await build(life, url, settings, metrics, worker=worker, pool_max=database.db_pool_max)
    endpoints = {"metrics_url": address("http", doors.metrics_host, server.port, "/metrics")}
    if doors.mqtt_url:
        await open_subscriber(life, doors, made, access)
        endpoints["mqtt_url"] = doors.mqtt_url
    else:
        endpoint = await open_endpoint(life, doors, made, access)
        endpoints["mqtt_url"] = address("mqtt", doors.mqtt_host, endpoint.port)
        if doors.mqtt_tls_cert:
            endpoints["mqtts_url"] = address("mqtts", doors.mqtt_host, endpoint.tls_port)
    _tune_collector()
    await announce(life, environ, endpoints)
    log.info("ingest is ready", **endpoints)


def _tune_collector() -> None:
    """Have the cycle collector leave alone what lives as long as the process, and the rest alone for longer.

    The hot path makes no cycles; walking what it has in flight every few hundred allocations is pure loss.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
