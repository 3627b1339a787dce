"""Metrics and health of a process that serves nothing else: `/actuator/prometheus`, `/actuator/health`."""

from __future__ import annotations

from typing import Any, cast

from litestar.di import Provide

from caudal.app.server import HttpServer, serve
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.web.api import health as routes
from caudal.web.frame import Application, Frame, TrustedProxies
from caudal.web.health import Health
from caudal.web.problems import HANDLERS


async def serve_operations(
    life: Lifecycle, metrics: Metrics, health: Health, host: str, port: int
) -> HttpServer:
    """Answer those who watch this process; returns once it does."""

    def given(service: object) -> Provide:
        return Provide(lambda: cast(Any, service), sync_to_thread=False, use_cache=True)

    app = Application(
        route_handlers=list(routes.ROUTES),
        dependencies={"metrics": given(metrics), "health": given(health)},
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
    app.frame = Frame(metrics, TrustedProxies(""))
    return await serve(life, app, host, port)
