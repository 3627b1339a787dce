"""Metrics of messaging, under the contract's names."""

from __future__ import annotations

from caudal.core.metrics import SIZES, Metrics


class AcceptMetrics:
    """What the API says about messages it takes."""

    def __init__(self, metrics: Metrics) -> None:
        self.accepted = metrics.counter("messages_accepted", "Messages answered with 202")
        self.rejected = metrics.counter("messages_rejected", "Messages refused", "reason")
        self.publish = metrics.histogram(
            "log_publish_duration_seconds", "From a batch's first message to its commit"
        )
        # The same figure under the name people's panels use.
        self.kafka_publish = metrics.histogram(
            "kafka_publish_duration_seconds", "From a batch's first message to its commit"
        )
        self.batch = metrics.histogram("accept_batch_size", "Messages that shared a commit", buckets=SIZES)


class RouterMetrics:
    """What a router says."""

    def __init__(self, metrics: Metrics) -> None:
        self.processed = metrics.counter("messages_processed", "Messages routed", "status")
        self.failed = metrics.counter("messages_failed", "Messages that could not be routed", "reason")
        self.failed.labels("unknown_message")
        self.seconds = metrics.histogram("processing_duration_seconds", "From poll to commit of a message")
        self.deliveries = metrics.counter("deliveries_created", "Deliveries made by routing", "channel")
        self.released = metrics.counter("deliveries_released", "Deliveries that waited and went out again")
