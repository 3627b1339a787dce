"""The ingest process: its doors (endpoint or subscriber), the pipeline, the writers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg

from caudal.core import db, logs
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics, MetricsServer
from caudal.core.notifications import listen_for_ever
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.identity import WorkerIdentity
from caudal.mqtt.ports import ConnectInfo, Principal
from caudal.mqtt.settings import EndpointSettings, SubscriberSettings
from caudal.mqtt.subscriber import Subscriber
from caudal.registry.directory import Directory, DirectorySettings
from caudal.registry.presence import Presence
from caudal.telemetry.batch import Batch
from caudal.telemetry.metrics import IngestMetrics
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import DoorSettings, IngestSettings
from caudal.telemetry.storage import Writer
from caudal.telemetry.topics import TopicTable

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
    pool = await db.open_pool(url, minimum=1, maximum=4, role=ROLE, name=f"caudal ingest {worker}")
    life.on_stop("ingest pool", pool.close)
    directory = Directory(pool, DirectorySettings(unknown_tenants=settings.unknown_tenants))

    async def connect() -> asyncpg.Connection[Any]:
        # No command time-out: a COPY that waits for a slow disk is not an error, and giving up on it would
        # only send the same rows again.
        return await asyncpg.connect(
            url, timeout=10, server_settings={"application_name": f"caudal ingest {worker}", "role": ROLE}
        )

    days: set[int] = set()
    writers = [
        Writer(connect, f"{worker}/{number}", known_days=days) for number in range(settings.ingest_writers)
    ]
    ingest_metrics = IngestMetrics(metrics)
    presence = Presence(pool)

    def after_commit(batch: Batch) -> None:
        presence.hear(batch.heard, batch.gateways)

    pipeline = Pipeline(directory, TopicTable(), settings, ingest_metrics, writers, after_commit=after_commit)
    ingest_metrics.watch(lambda: pipeline.messages)
    life.spawn("presence", presence.run())
    life.spawn(
        "registry listener",
        listen_for_ever(connect, {"caudal_registry": directory.forget}, on_gap=directory.forget_all),
    )
    for writer in writers:
        life.on_stop(f"connection of {writer.name}", writer.close)
        life.spawn(f"writer {writer.name}", pipeline.write_for_ever(writer))
    life.spawn("resolver", pipeline.resolve_for_ever())
    return pipeline


async def start(
    life: Lifecycle, environ: Mapping[str, str] = os.environ, *, worker: str | None = None
) -> None:
    """Start ingest as the environment says."""
    settings = load(IngestSettings, environ)
    doors = load(DoorSettings, environ)
    database = load(db.DatabaseSettings, environ)
    if not database.database_url:
        raise SystemExit("DATABASE_URL is not set. `caudal up` brings a database of its own.")
    worker = worker or f"{socket.gethostname()}:{os.getpid()}"
    metrics = Metrics()
    server = MetricsServer.start(metrics, doors.metrics_port, doors.metrics_host)
    life.on_stop("metrics", server.stop)
    pipeline = await build_pipeline(life, database.database_url, settings, metrics, worker=worker)
    endpoints = {"metrics_url": f"http://{doors.metrics_host}:{server.port}/metrics"}
    if doors.mqtt_url:
        await open_subscriber(life, doors, pipeline)
        endpoints["mqtt_url"] = doors.mqtt_url
    else:
        endpoint = await open_endpoint(life, doors, pipeline)
        endpoints["mqtt_url"] = f"mqtt://{doors.mqtt_host}:{endpoint.port}"
    await announce(life, environ, endpoints)
    log.info("ingest is ready", **endpoints)


async def open_subscriber(life: Lifecycle, doors: DoorSettings, pipeline: Pipeline) -> Subscriber:
    """Subscribe to the broker that the settings name."""
    identity = WorkerIdentity(Path(doors.state_dir))
    topics = doors.mqtt_topics.split(",") if doors.mqtt_topics else TopicTable().filters()
    subscriber = Subscriber(
        SubscriberSettings(
            url=doors.mqtt_url or "", topics=tuple(topic.strip() for topic in topics if topic.strip()),
            client_id=identity.client_id, group=doors.mqtt_group or None, qos=doors.mqtt_qos,
        ),
        pipeline,
    )  # fmt: skip
    subscriber.start()

    async def stop() -> None:
        subscriber.drain()
        await _drained(pipeline)
        await subscriber.close()
        identity.release()

    life.on_stop("subscriber", stop)
    return subscriber


async def open_endpoint(life: Lifecycle, doors: DoorSettings, pipeline: Pipeline) -> Endpoint:
    """Listen for devices."""
    endpoint = Endpoint(EndpointSettings(host=doors.mqtt_host, port=doors.mqtt_port), pipeline, OpenHooks())
    await endpoint.start()

    async def stop() -> None:
        # What has been read is committed and acknowledged before anybody is sent away.
        endpoint.drain()
        await _drained(pipeline)
        await endpoint.close(2)

    life.on_stop("endpoint", stop)
    return endpoint


async def _drained(pipeline: Pipeline) -> None:
    try:
        await asyncio.wait_for(pipeline.drained(), 4)
    except TimeoutError:
        log.warning("stopping with messages unacknowledged; their senders still have them")
