"""Ingest's doors: our own endpoint, or a subscription to a broker; and the way out for commands by each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec

from caudal.core import logs
from caudal.core.errors import SettingsError
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.notifications import listen_for_ever
from caudal.mqtt.broker import BrokerError
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.identity import WorkerIdentity
from caudal.mqtt.settings import EndpointSettings, SubscriberSettings, server_tls
from caudal.mqtt.subscriber import Subscriber
from caudal.registry.access import Access, AccessSettings
from caudal.registry.dispatch import CommandPublisher, Dispatcher
from caudal.registry.door import DoorHooks
from caudal.telemetry.batch import Batch
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import DoorSettings
from caudal.telemetry.topics import TEMPLATES

log = logs.get("doors")

READY_SECONDS = 5.0
"""How long a start waits for the broker's word."""


class IngestParts(msgspec.Struct):
    """What a door needs of ingest. `connect` opens a connection beside the pool's."""

    pipeline: Pipeline
    pool: Any
    connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]
    metrics: Metrics


def broker_address(url: str) -> tuple[str, int]:
    """Host and port of MQTT_URL. Raises SettingsError."""
    wrong = SettingsError("MQTT_URL: write it as mqtt://user:password@host:1883, or mqtts:// for TLS.")
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError:
        raise wrong from None
    if address.scheme not in ("mqtt", "mqtts", "tcp", "ssl") or not address.hostname or port == 0:
        raise wrong
    return address.hostname, port or (8883 if address.scheme in ("mqtts", "ssl") else 1883)


def access_rules(pipeline: Pipeline) -> Access:
    """Who may publish and subscribe where, on the topics that are in force for `pipeline`."""
    given = pipeline.topics.templates()
    return Access({kind: given.get(kind, ()) for kind in TEMPLATES}, topic_tenant=pipeline.topic_tenant)


class EndpointPublisher:
    """Commands to devices that are connected to this process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def publish(self, topic: str, payload: bytes, *, expiry: int) -> bool:
        """True once a device has acknowledged it."""
        return 0 in await self._endpoint.publish(topic, payload, expiry=expiry)


class BrokerPublisher:
    """Commands through the broker that we subscribe to."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def publish(self, topic: str, payload: bytes, *, expiry: int) -> bool:
        """True once the broker has it and knows of somebody to give it to."""
        try:
            return await self._subscriber.publish(topic, payload) == 0
        except BrokerError:
            return False


async def open_endpoint(
    life: Lifecycle, doors: DoorSettings, made: IngestParts, settings: AccessSettings
) -> Endpoint:
    """Listen for devices."""
    rules = access_rules(made.pipeline)
    hooks = DoorHooks(
        made.pool, rules, open_to_all=settings.open(doors.mqtt_host),
        admin_password=settings.mqtt_admin_password,
    )  # fmt: skip
    tls = None
    if doors.mqtt_tls_cert and doors.mqtt_tls_key:
        tls = server_tls(
            doors.mqtt_tls_cert, doors.mqtt_tls_key, client_ca=doors.mqtt_tls_client_ca, required=False
        )
    endpoint = Endpoint(
        EndpointSettings(
            host=doors.mqtt_host, port=doors.mqtt_port, tls_host=doors.mqtt_host,
            tls_port=doors.mqtt_tls_port if tls else None,
        ),
        made.pipeline, hooks, tls=tls,
    )  # fmt: skip
    await endpoint.start()
    made.metrics.counts("mqtt", "MQTT endpoint", endpoint.counters, endpoint.counters.GAUGES)

    async def stop() -> None:
        # What has been read is committed and acknowledged before anybody is sent away.
        endpoint.drain()
        await _drained(made.pipeline)
        await endpoint.close(2)

    def show(batch: Batch) -> None:
        endpoint.fan_out(entry.message for entry in batch.entries)

    life.on_stop("endpoint", stop)
    made.pipeline.on_commit(show)
    life.spawn(
        "access listener",
        listen_for_ever(made.connect, {"caudal_access": hooks.changed}, on_gap=hooks.changed_all),
    )
    life.spawn("access watch", hooks.watch(endpoint))
    _dispatch(life, made, EndpointPublisher(endpoint), rules)
    return endpoint


async def open_subscriber(
    life: Lifecycle, doors: DoorSettings, made: IngestParts, settings: AccessSettings
) -> Subscriber:
    """Subscribe to the broker that the settings name."""
    broker_address(doors.mqtt_url or "")
    identity = WorkerIdentity(Path(doors.state_dir))
    given = doors.mqtt_topics.split(",") if doors.mqtt_topics else made.pipeline.topics.filters()
    topics = tuple(topic.strip() for topic in given if topic.strip())
    subscriber = Subscriber(
        SubscriberSettings(
            url=doors.mqtt_url or "", topics=topics, client_id=identity.client_id,
            group=doors.mqtt_group or None, qos=doors.mqtt_qos, ca_file=doors.mqtt_ca_file,
            alone=len(made.pipeline.tenants_of(topics)) == 1,
        ),
        made.pipeline,
    )  # fmt: skip
    subscriber.start()
    made.metrics.counts("mqtt", "MQTT subscriber", subscriber.counters, subscriber.counters.GAUGES)

    async def stop() -> None:
        subscriber.drain()
        await _drained(made.pipeline)
        await subscriber.close()
        identity.release()

    life.on_stop("subscriber", stop)
    # What is published before there is a subscription, a broker forgets: ready is who has one. A broker that
    # is away is waited for all the same, for as long as it takes.
    try:
        async with asyncio.timeout(READY_SECONDS):
            await subscriber.online.wait()
    except TimeoutError:
        log.warning("the broker does not let us subscribe yet; trying on", error=subscriber.last_error)
    _dispatch(life, made, BrokerPublisher(subscriber), access_rules(made.pipeline))
    return subscriber


def _dispatch(life: Lifecycle, made: IngestParts, publisher: CommandPublisher, rules: Access) -> None:
    life.spawn("commands", Dispatcher(made.pool, publisher, rules).run(made.connect))


async def _drained(pipeline: Pipeline) -> None:
    try:
        await asyncio.wait_for(pipeline.drained(), 4)
    except TimeoutError:
        log.warning("stopping with messages unacknowledged; their senders still have them")
