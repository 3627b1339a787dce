"""The sandbox as a server: one port for both providers and the control API."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from litestar import Litestar, get
from litestar.di import Provide

from caudal.core.lifecycle import Lifecycle
from caudal.sandbox import control, provider
from caudal.sandbox.engine import BareFault, Engine
from caudal.sandbox.errors import GraphError
from caudal.sandbox.model import World
from caudal.sandbox.webhooks import Dispatcher

LARGEST_BODY = 110 * 1024 * 1024


@get("/health", sync_to_thread=False)
def health() -> dict[str, str]:
    """Whether the sandbox answers."""
    return {"status": "UP"}


def application(engine: Engine) -> Litestar:
    """The ASGI application over `engine`."""

    return Litestar(
        route_handlers=[*provider.ROUTES, control.router(), health],
        dependencies={"engine": Provide(lambda: engine, sync_to_thread=False, use_cache=True)},
        exception_handlers={
            GraphError: provider.graph_error,
            BareFault: provider.bare_fault,
        },
        request_max_body_size=LARGEST_BODY,
        openapi_config=None,
    )


def _listener(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the socket names its protocol, which create_server() does
    # not; with it each answer waits 40 ms for the client's delayed acknowledgement.
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    return made


class Sandbox:
    """A running sandbox. `port` 0 takes a free one; `url` is where it answers."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, seed: int = 1, first_pause: float = 1.0
    ) -> None:
        self._socket = _listener(host, port)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self.world = World(seed)
        self.hooks = Dispatcher(first_pause=first_pause)
        self.engine = Engine(self.world, self.hooks, self.url)
        config = uvicorn.Config(
            application(self.engine),
            log_level="critical",
            lifespan="on",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    async def start(self, life: Lifecycle) -> None:
        """Serve as parts of `life`; returns once it answers."""
        life.spawn("sandbox webhooks", self.hooks.run())
        # uvicorn would take over the process's signals, which are the lifecycle's.
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[self._socket])
        life.spawn("sandbox http", self._server.main_loop())
        life.on_stop("sandbox http shutdown", self._stop)

    async def _stop(self) -> None:
        self._server.should_exit = True
        async with asyncio.timeout(5):
            await self._server.shutdown(sockets=[self._socket])
