"""Settings of the log."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from caudal.core.settings import setting


class LogSettings(msgspec.Struct, frozen=True):
    """Which log there is and how its consumers share it."""

    log: Annotated[
        Literal["postgres", "kafka"], setting("Where messages wait between processes: postgres or kafka")
    ] = "postgres"
    kafka_bootstrap_servers: Annotated[str, setting("Kafka brokers, host:port, separated by commas")] = (
        "127.0.0.1:9092"
    )
    log_partitions: Annotated[
        int,
        setting("Partitions of a topic when it is created; bounds how many workers share it", ge=1, le=1024),
    ] = 12
    kafka_replication: Annotated[
        int, setting("Copies of a topic that Kafka keeps, when it is created", ge=1)
    ] = 1
    log_lease_seconds: Annotated[
        float, setting("Seconds after which a silent consumer's partitions go to others", ge=0.2, le=300)
    ] = 5.0
    log_keep_hours: Annotated[
        float, setting("Hours that processed records are kept in the PostgreSQL log", ge=0)
    ] = 24.0
    log_keep_unread_days: Annotated[
        float, setting("Days after which records go even if a group has not processed them", ge=1)
    ] = 30.0
