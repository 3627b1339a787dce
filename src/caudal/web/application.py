"""The application factory: every route behind one frame, one gate, one door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
from litestar import Request
from litestar.datastructures import State
from litestar.di import Provide

from caudal.core.metrics import Metrics
from caudal.registry.authenticate import Authenticator
from caudal.registry.principal import Principal
from caudal.registry.settings import PeopleSettings
from caudal.web import openapi
from caudal.web.api import resources
from caudal.web.console import pages as console
from caudal.web.door import Door
from caudal.web.frame import Application, Frame, TrustedProxies
from caudal.web.guards import Gate
from caudal.web.health import Health
from caudal.web.problems import HANDLERS
from caudal.web.settings import WebSettings


def _principal(request: Request[Any, Any, Any]) -> Principal:
    user: Principal = request.scope["user"]
    return user


def create_app(
    *,
    pool: asyncpg.Pool[Any],
    authenticator: Authenticator,
    metrics: Metrics,
    health: Health,
    services: Mapping[str, object],
    people: PeopleSettings,
    web: WebSettings,
) -> Application:
    """The API.

    `pool` runs as `caudal_app`. Each of `services` becomes the dependency of its name for the routes; a
    resource (`web/api/*.py`) whose `NEEDS` are not among them is left out. Handlers may also take
    `principal` (who calls), `door` (the database for their tenant), `metrics` and `health`.
    """

    def door(request: Request[Any, Any, Any]) -> Door:
        return Door(pool, request.scope["user"])

    given = {"metrics": metrics, "health": health, "authenticator": authenticator, **services}
    dependencies = {
        "principal": Provide(_principal, sync_to_thread=False),
        "door": Provide(door, sync_to_thread=False),
        **{name: _constant(service) for name, service in given.items()},
    }
    gate = Gate(authenticator, tenant_rate=people.rate_limit_tenant, address_rate=people.rate_limit_address)
    app = Application(
        route_handlers=[*resources(set(given)), *console(set(given))],
        dependencies=dependencies,
        exception_handlers=HANDLERS,
        openapi_config=openapi.config(),
        request_max_body_size=web.http_body_max,
        state=State(
            {
                "gate": gate,
                "web": web,
                "services": frozenset(given),
                "installation_tenant": people.default_tenant,
            }
        ),
        # Ours are in problems.py; Litestar's would put tracebacks on the standard logger.
        logging_config=None,
        debug=False,
    )
    app.frame = Frame(metrics, TrustedProxies(web.trusted_proxies))
    return app


def _constant(service: object) -> Provide:
    def provide() -> Any:
        return service

    return Provide(provide, sync_to_thread=False, use_cache=True)


__all__ = ["Application", "create_app"]
