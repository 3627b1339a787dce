"""Router, connectors and upkeep in one process, each with its own port: for one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from caudal.app import connector, realtime, router, upkeep
from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import VARIABLE, announce
from caudal.core.settings import load
from caudal.messaging import connectors
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.settings import MessagingSettings
from caudal.web.settings import WebSettings


async def start(life: Lifecycle, environ: Mapping[str, str] = os.environ) -> None:
    """Start what production runs as processes of their own; one that fails stops them all."""
    # The parts must not announce themselves: ready is when all of them are.
    inner = {key: value for key, value in environ.items() if key != VARIABLE}
    await router.starter(inner)(life)
    for name in connectors.names():
        await connector.starter(name, inner)(life)
    await upkeep.starter(inner)(life)
    await realtime.starter(inner)(life)
    host = load(WebSettings, environ).api_host
    sending = load(SendingSettings, environ)
    ports = {name: sending.metrics_port(name) for name in connectors.names()}
    ports["router"] = load(MessagingSettings, environ).router_metrics_port
    ports["upkeep"] = load(upkeep.UpkeepSettings, environ).upkeep_metrics_port
    ports["realtime"] = gateway = load(RealtimeSettings, environ).realtime_port
    endpoints = {
        f"{name}_metrics_url": f"http://{host}:{port}/actuator/prometheus" for name, port in ports.items()
    }
    endpoints["realtime_url"] = f"ws://{host}:{gateway}/notifications"
    await announce(life, environ, endpoints)
