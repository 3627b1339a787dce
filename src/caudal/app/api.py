"""Composition root of the API process: settings in, one HTTP server out."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import msgspec

from caudal.app import console, devices, files, messaging, webhooks
from caudal.app.server import serve
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.lifecycle import Lifecycle
from caudal.core.memory import give_back_blocks
from caudal.core.metrics import Metrics
from caudal.core.notifications import listen_for_ever
from caudal.core.readiness import announce
from caudal.core.seal import Sealer
from caudal.core.settings import load
from caudal.insight.live import TOLD, Hub
from caudal.registry.accounts import Accounts
from caudal.registry.authenticate import Authenticator
from caudal.registry.mail import Post, mailer_of
from caudal.registry.passwords import Passwords
from caudal.registry.settings import PeopleSettings, sealer_of
from caudal.registry.tokens import KeyRing
from caudal.web.application import create_app
from caudal.web.frame import Application
from caudal.web.health import Health
from caudal.web.settings import WebSettings

log = logs.get("api")


class Services(dict[str, object]):
    """Services by name. A second one of the same name is a defect: routes would silently get the other."""

    def __setitem__(self, name: str, service: object) -> None:
        if name in self:
            raise ValueError(f"two domains bring a service called {name!r}")
        super().__setitem__(name, service)

    def update(self, *args: Any, **kwargs: object) -> None:
        """Add all of these."""
        for name, service in dict(*args, **kwargs).items():
            self[name] = service


class ApiParts(msgspec.Struct, dict=True):
    """What the API is made of, for whoever composes it with more."""

    pool: Any
    database_url: str
    # What domains read their settings from; tests give their own.
    environ: Mapping[str, str]
    people: PeopleSettings
    web: WebSettings
    sealer: Sealer
    keys: KeyRing
    authenticator: Authenticator
    metrics: Metrics
    health: Health
    services: Services


async def parts(
    life: Lifecycle,
    database_url: str,
    people: PeopleSettings,
    web: WebSettings,
    metrics: Metrics,
    *,
    environ: Mapping[str, str],
    pool_max: int = 8,
) -> ApiParts:
    """Open what every API process needs, to be closed by `life`. Raises when the database does not answer."""
    pool: asyncpg.Pool[Any] = await db.open_pool(
        database_url, minimum=2, maximum=pool_max, role=db.APP_ROLE, name="caudal api"
    )
    life.on_stop("api database pool", pool.close)
    passwords = Passwords()

    async def close_passwords() -> None:
        passwords.close()

    life.on_stop("password threads", close_passwords)
    sealer = sealer_of(people)
    keys = KeyRing(pool, sealer, token_seconds=people.token_seconds, key_days=people.signing_key_days)
    await keys.refresh()
    authenticator = Authenticator(
        pool, keys, fresh=people.principal_seconds, session_hours=people.session_hours
    )
    accounts = Accounts(pool, passwords, keys, people)
    post = Post(mailer_of(people.mail_url, log_secrets=people.mail_log_secrets))
    post.start(life)
    hub = live_hub(life, database_url, pool)
    services = Services()
    services.update(
        {
            "live_hub": hub,
            "accounts": accounts,
            "keys": keys,
            "sealer": sealer,
            "post": post,
            "people_settings": people,
        }
    )
    return ApiParts(
        pool, database_url, environ, people, web, sealer, keys, authenticator, metrics, Health(pool), services
    )


def live_hub(life: Lifecycle, url: str, pool: asyncpg.Pool[Any]) -> Hub:
    """Live values for whoever watches through this process."""
    hub = Hub(pool)

    async def connect() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            url, timeout=10, server_settings={"application_name": "caudal api live", "role": db.APP_ROLE}
        )

    life.spawn("live listener", listen_for_ever(connect, {TOLD: hub.heard}, on_gap=hub.heard_all))
    life.spawn("live register", hub.register())
    return hub


def application(made: ApiParts) -> Application:
    """The ASGI application of these parts."""
    return create_app(
        pool=made.pool,
        authenticator=made.authenticator,
        metrics=made.metrics,
        health=made.health,
        services=made.services,
        people=made.people,
        web=made.web,
    )


# Above an upload's parts, which come one after the other, and below what hashing a password takes.
LARGE_BLOCK = 16 * 1024 * 1024

# What other domains bring: each opens its services, adds them to `made.services` (and its parts' checks to
# `made.health`), and has `life` close them. A resource finds its services by name (web/api/*.py, NEEDS).
Domain = Callable[[Lifecycle, ApiParts], Awaitable[None]]
DOMAINS: tuple[Domain, ...] = (
    messaging.bring,
    webhooks.bring,
    files.bring,
    files.bring_sockets,
    devices.bring,
    console.bring,
)


async def start(life: Lifecycle) -> None:
    """`caudal api`: the API as a process of its own, all settings from the environment."""
    give_back_blocks(LARGE_BLOCK)
    environ = os.environ
    database = load(db.DatabaseSettings, environ)
    people = load(PeopleSettings, environ)
    web = load(WebSettings, environ)
    made = await parts(
        life,
        db.url_of(environ),
        people,
        web,
        Metrics(),
        environ=environ,
        pool_max=database.db_pool_max,
    )
    for domain in DOMAINS:
        await domain(life, made)
    server = await serve(life, application(made), web.api_host, web.api_port)
    endpoints = {"api_url": address("http", web.api_host, server.port)}
    await announce(life, environ, endpoints)
    log.info("api is ready", **endpoints)
