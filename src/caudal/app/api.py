"""Composition root of the API process: settings in, one HTTP server out."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from caudal.app import console, devices, files, messaging, webhooks
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.errors import SettingsError
from caudal.core.lifecycle import Lifecycle
from caudal.core.memory import give_back_blocks
from caudal.core.metrics import Metrics
from caudal.core.notifications import listen_for_ever
from caudal.core.readiness import announce
from caudal.core.seal import Sealer, secret_from
from caudal.core.settings import load
from caudal.insight.live import TOLD, Hub
from caudal.registry.accounts import Accounts
from caudal.registry.authenticate import Authenticator
from caudal.registry.mail import Post, mailer_of
from caudal.registry.passwords import Passwords
from caudal.registry.settings import PeopleSettings
from caudal.registry.tokens import KeyRing
from caudal.web.application import Application, create_app
from caudal.web.health import Health
from caudal.web.settings import WebSettings

log = logs.get("api")
ROLE = "caudal_app"
# Seconds for the last words on a socket.
FAREWELL = 5.0


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


def sealer_of(people: PeopleSettings) -> Sealer:
    """The sealer that the settings name. Raises SettingsError."""
    if people.secret_key:
        return Sealer(people.secret_key)
    if people.secret_file:
        return Sealer(secret_from(Path(people.secret_file)))
    raise SettingsError("Set CAUDAL_MASTER_KEY (32 characters or more), or SECRET_FILE.")


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
        database_url, minimum=2, maximum=pool_max, role=ROLE, name="caudal api"
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
            url, timeout=10, server_settings={"application_name": "caudal api live", "role": ROLE}
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


# Connections that wait to be accepted.
BACKLOG = 1024


class HttpServer:
    """uvicorn (uvloop, httptools) on a socket that is bound before anything else, so that `port` is known."""

    def __init__(self, app: Application, host: str, port: int) -> None:
        self._app = app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named in full: asyncio turns Nagle off only where it reads TCP here; an answer of two
        # writes would then wait 40 ms for the client's delayed acknowledgement.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        # Two may bind the same port until one of them listens; whoever comes second must hear of it here.
        self._socket.listen(BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # We know our proxies ourselves (TRUSTED_PROXIES).
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            backlog=BACKLOG,
            ws=_Sockets,
            # People send a ping; compression would hold a window for each of thousands.
            ws_max_size=65_536,
            ws_per_message_deflate=False,
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serve until stopped."""
        await self._server.serve(sockets=[self._socket])

    async def started(self) -> None:
        """Return once requests are accepted."""
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Take no more requests, finish those begun, within five seconds."""
        self._server.should_exit = True


class _Sockets(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, of which nothing lingers for a peer that no longer reads."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        # Closing waits until everything is read, however long that takes.
        self.loop.call_later(FAREWELL, self.transport.abort)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own (the lifecycle has them), saying when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(life: Lifecycle, app: Application, host: str, port: int) -> HttpServer:
    """Serve `app` as a part of `life`; returns once requests are accepted."""
    server = HttpServer(app, host, port)
    task = life.spawn("http server", server.serve())
    started = asyncio.create_task(server.started(), name="http server starts")
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        started.cancel()
        task.result()

    async def stop() -> None:
        await server.stop()
        await asyncio.wait([task])

    life.on_stop("http server, in order", stop)
    return server


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
    if database.database_url is None:
        raise SettingsError("DATABASE_URL is not set. `caudal up` brings a database of its own.")
    made = await parts(
        life,
        database.database_url,
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
