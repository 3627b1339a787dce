"""Settings of messaging."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class MessagingSettings(msgspec.Struct, frozen=True):
    """How long deliveries are tried, and how much is done at once."""

    delivery_expiry_hours: Annotated[
        float, setting("Hours after which a message that could not be sent fails", gt=0)
    ] = 72.0
    delivery_max_attempts: Annotated[
        int, setting("Calls to a provider after which a delivery fails for good", ge=1)
    ] = 8
    sending_timeout_seconds: Annotated[
        float, setting("Seconds after which a call without any word of it counts as unknown", ge=1)
    ] = 300.0
    accept_batch: Annotated[int, setting("Messages that share a commit at most", ge=1, le=5000)] = 500
    accept_queue: Annotated[
        int, setting("Messages of a tenant that may wait for their commit; beyond, 503", ge=1)
    ] = 10_000
    router_batch: Annotated[int, setting("Messages routed in one transaction at most", ge=1, le=5000)] = 200
    notification_keep_days: Annotated[
        float, setting("Days that a socket may stay away and still resume without a gap", gt=0)
    ] = 7.0
    router_metrics_port: Annotated[int, setting("Port of the router's metrics and health", ge=0)] = 8082
