"""Sockets on the API's own port, and a gateway process of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

from litestar.datastructures import State
from litestar.di import Provide

from caudal.app.messaging import ROLE, deliveries_of
from caudal.app.part import Starter
from caudal.app.server import HttpServer, serve
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.messaging.realtime import Hub
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.registry.authenticate import Authenticator
from caudal.registry.settings import PeopleSettings, sealer_of
from caudal.registry.tokens import KeyRing
from caudal.web.api import health as health_routes
from caudal.web.api import notifications
from caudal.web.frame import Application, Frame, TrustedProxies
from caudal.web.guards import Gate
from caudal.web.health import Health
from caudal.web.problems import HANDLERS
from caudal.web.settings import WebSettings

log = logs.get("realtime")


async def gateway(
    life: Lifecycle,
    url: str,
    people: PeopleSettings,
    web: WebSettings,
    settings: RealtimeSettings,
    environ: Mapping[str, str] = os.environ,
) -> HttpServer:
    """Serve sockets, health and metrics as parts of `life`; returns once it does."""
    metrics = Metrics()
    pool = await db.open_pool(url, minimum=1, maximum=4, role=db.APP_ROLE, name="caudal realtime, people")
    life.on_stop("people's pool", pool.close)
    keys = KeyRing(
        pool, sealer_of(people), token_seconds=people.token_seconds, key_days=people.signing_key_days
    )
    await keys.refresh()
    authenticator = Authenticator(pool, keys, fresh=people.principal_seconds)
    own = await db.open_pool(url, minimum=1, maximum=6, role=ROLE, name="caudal realtime")
    life.on_stop("realtime pool", own.close)
    deliveries = await deliveries_of(life, own, url, environ)
    hub = Hub(own, url, settings, metrics, deliveries)
    await hub.start(life)
    given = {"metrics": metrics, "health": Health(own), "hub": hub, "authenticator": authenticator}
    app = Application(
        route_handlers=[*health_routes.ROUTES, *notifications.ROUTES],
        dependencies={name: _constant(service) for name, service in given.items()},
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
        state=State(
            {
                "gate": Gate(
                    authenticator,
                    tenant_rate=people.rate_limit_tenant,
                    address_rate=people.rate_limit_address,
                )
            }
        ),
    )
    app.frame = Frame(metrics, TrustedProxies(web.trusted_proxies))
    return await serve(life, app, web.api_host, settings.realtime_port)


def _constant(service: object) -> Provide:
    return Provide(lambda: cast(Any, service), sync_to_thread=False, use_cache=True)


def starter(environ: Mapping[str, str] = os.environ) -> Starter:
    """`caudal realtime`: a gateway as a process of its own, all settings from `environ`."""
    database = db.url_of(environ)
    people = load(PeopleSettings, environ)
    web = load(WebSettings, environ)
    settings = load(RealtimeSettings, environ)

    async def start(life: Lifecycle) -> dict[str, str]:
        server = await gateway(life, database, people, web, settings, environ)
        endpoints = {
            "realtime_metrics_url": address("http", web.api_host, server.port, "/actuator/prometheus"),
            "realtime_url": address("ws", web.api_host, server.port, "/notifications"),
        }
        await announce(life, environ, endpoints)
        log.info("the gateway is ready", **endpoints)
        return endpoints

    return start
