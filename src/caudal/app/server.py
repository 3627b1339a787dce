"""One HTTP server: uvicorn as a part of a process's life."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from caudal.core.lifecycle import Lifecycle

Asgi: TypeAlias = Callable[..., Awaitable[Any]]
"""An ASGI application; whose is of no interest here."""

# Connections that wait to be accepted.
BACKLOG = 1024
# Seconds for the last words on a socket.
FAREWELL = 5.0
# What uvicorn's own loop waits.
TICK = 0.1


class HttpServer:
    """uvicorn (uvloop, httptools) on a socket that is bound before anything else, so that `port` is known."""

    def __init__(self, app: Asgi, host: str, port: int) -> None:
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
        self._server.leave()


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
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Begin to stop, now and not at the next tick."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Tick (the date in answers is the tick's) until somebody leaves."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks = (ticks + 1) % 864_000
            try:
                await asyncio.wait_for(self._leaving.wait(), TICK)
            except TimeoutError:
                pass

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(life: Lifecycle, app: Asgi, host: str, port: int) -> HttpServer:
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
