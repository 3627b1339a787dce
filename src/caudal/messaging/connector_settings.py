"""Settings of the processes that speak to providers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting
from caudal.messaging.provider import ConnectorSettings


class SendingSettings(msgspec.Struct, frozen=True):
    """How providers are reached, how fast, and what happens when they do not answer."""

    whatsapp_api_base: Annotated[
        str, setting("Where WhatsApp's Cloud API is; the sandbox's URL for a trial")
    ] = "https://graph.facebook.com"
    whatsapp_api_version: Annotated[str, setting("Version of the Cloud API")] = "v23.0"
    instagram_api_base: Annotated[str, setting("Where Instagram's API is; the sandbox's URL for a trial")] = (
        "https://graph.instagram.com"
    )
    instagram_api_version: Annotated[str, setting("Version of Instagram's API")] = "v23.0"
    connector_concurrency: Annotated[
        int, setting("Calls to its provider that a connector process has under way at most", ge=1, le=1000)
    ] = 16
    connector_connect_timeout: Annotated[float, setting("Seconds to reach a provider", gt=0)] = 5.0
    connector_answer_timeout: Annotated[
        float, setting("Seconds to wait for a provider's answer; then the delivery is unknown", gt=0)
    ] = 30.0
    connector_patience: Annotated[
        float,
        setting("Seconds that a message may wait in memory for its rate limit; beyond, it is parked", ge=0),
    ] = 2.0
    connector_retry_first: Annotated[float, setting("Seconds before the second attempt; doubles", gt=0)] = 2.0
    connector_retry_most: Annotated[float, setting("Seconds between attempts at most", gt=0)] = 600.0
    connector_operator_pause: Annotated[
        float, setting("Seconds between tries of an account that somebody must attend to", gt=0)
    ] = 60.0
    breaker_failures: Annotated[int, setting("Failures in a row that open an account's breaker", ge=1)] = 5
    breaker_seconds: Annotated[float, setting("Seconds that a breaker stays open before one try", gt=0)] = (
        30.0
    )
    webhook_concurrency: Annotated[int, setting("Webhook events worked on at once", ge=1, le=1000)] = 16
    whatsapp_metrics_port: Annotated[int, setting("Port of the WhatsApp connector's metrics", ge=0)] = 8083
    instagram_metrics_port: Annotated[int, setting("Port of the Instagram connector's metrics", ge=0)] = 8084
    apprise_metrics_port: Annotated[int, setting("Port of the Apprise connector's metrics", ge=0)] = 8086

    def connector(self, name: str) -> ConnectorSettings:
        """The part that the connector `name` is made with."""
        instagram = name == "instagram"
        return ConnectorSettings(
            api_base=self.instagram_api_base if instagram else self.whatsapp_api_base,
            api_version=self.instagram_api_version if instagram else self.whatsapp_api_version,
            connect_timeout=self.connector_connect_timeout,
            answer_timeout=self.connector_answer_timeout,
            concurrency=self.connector_concurrency,
        )

    def metrics_port(self, name: str) -> int:
        """Where the process of connector `name` shows its metrics."""
        port: int = getattr(self, f"{name}_metrics_port")
        return port
