"""Settings of ingest; the names are those of the `.env.ingest` that people have."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from caudal.core.settings import setting


class IngestSettings(msgspec.Struct, frozen=True):
    """How much may be in flight, when a batch closes, and what happens to the unknown."""

    ingest_queue_max: Annotated[int, setting("Messages in flight, received and not yet committed", ge=1)] = (
        50_000
    )
    ingest_queue_bytes: Annotated[
        int, setting("Bytes of them, payloads and rows made of them", ge=1 << 20)
    ] = 24 << 20
    ingest_batch_size: Annotated[int, setting("Messages in a batch at most", ge=1)] = 800
    ingest_batch_bytes: Annotated[int, setting("Bytes of rows in a batch at most", ge=4096)] = 2 << 20
    ingest_batch_ms: Annotated[
        int, setting("Milliseconds from a batch's first message to its close", ge=0)
    ] = 250
    ingest_pace_ms: Annotated[
        int, setting("Milliseconds between batches that are not full; the first goes at once", ge=0)
    ] = 6
    ingest_writers: Annotated[
        int, setting("Database connections that write, beside the express one", ge=1)
    ] = 2
    ingest_payload_max: Annotated[int, setting("Bytes in a payload; larger is `too_large`", ge=1024)] = (
        1 << 20
    )
    ingest_clock_skew_s: Annotated[
        int, setting("Seconds a device's clock may be ahead before its samples are suspect", ge=0)
    ] = 300
    unknown_tenants: Annotated[
        Literal["register", "refuse"], setting("What happens to a tenant nobody made: register or refuse")
    ] = "refuse"
    topic_templates: Annotated[
        str, setting("Topics in place of the usual: kind=template, separated by spaces (docs/mqtt.md)")
    ] = ""
    topic_tenant: Annotated[str, setting("Tenant of topics whose template names none")] = "default"


class DoorSettings(msgspec.Struct, frozen=True):
    """Where telemetry comes in, and where the metrics are."""

    mqtt_url: Annotated[
        str | None,
        setting("A broker to subscribe to, `mqtt://` or `mqtts://`; our own endpoint when left out"),
    ] = None
    mqtt_topics: Annotated[str, setting("Filters to subscribe to, with commas; those of the templates")] = ""
    mqtt_qos: Annotated[int, setting("QoS of the subscription", ge=0, le=2)] = 1
    mqtt_group: Annotated[str, setting("Group of a shared subscription, so that workers split the load")] = ""
    state_dir: Annotated[str, setting("Where a worker keeps its name, so that a broker knows it again")] = (
        ".caudal-state"
    )
    mqtt_host: Annotated[str, setting("Address that our endpoint listens on")] = "127.0.0.1"
    mqtt_port: Annotated[int, setting("Port of our endpoint", ge=0, le=65535)] = 1883
    mqtt_tls_port: Annotated[int, setting("Port of our endpoint with TLS", ge=0, le=65535)] = 8883
    mqtt_tls_cert: Annotated[str | None, setting("Our certificate chain, PEM; TLS is served with it")] = None
    mqtt_tls_key: Annotated[str | None, setting("Its private key, PEM")] = None
    mqtt_tls_client_ca: Annotated[
        str | None, setting("Authority that devices' certificates are from, PEM; they are asked for one")
    ] = None
    mqtt_ca_file: Annotated[str | None, setting("Authority of the broker at MQTT_URL, PEM")] = None
    metrics_host: Annotated[str, setting("Address of the metrics")] = "127.0.0.1"
    metrics_port: Annotated[int, setting("Port of ingest's metrics", ge=0, le=65535)] = 9100
