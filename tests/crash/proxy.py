"""A TCP proxy that can hold the network: connections go silent, half of them dies, or both ends are cut."""

from __future__ import annotations

import asyncio
import contextlib


class StallingProxy:
    """Forwards to `port` of this machine. Faults are switched on for what is connected and what will be."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[_Pair] = set()
        self.port = 0
        self.bytes = 0

    async def start(self, port: int = 0) -> None:
        """Listen; `port` is where from then on."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for pair in list(self._open):
            pair.abandon()

    def stall(self) -> None:
        """Nothing moves any more, in either direction; connections stay, and new ones are taken."""
        self._flows.clear()

    def flow(self) -> None:
        """What was stalled moves again, none of it lost."""
        self._flows.set()

    def cut(self) -> None:
        """Both ends of every connection see a reset."""
        for pair in list(self._open):
            pair.cut_near()
            pair.cut_far()

    def halve(self) -> None:
        """The near end of every connection sees a reset; the far end sees nothing, ever: it is half open."""
        for pair in list(self._open):
            pair.cut_near()

    @property
    def half_open(self) -> int:
        """Connections that only the far end believes in."""
        return sum(pair.near_gone for pair in self._open)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._open.add(pair)
        tasks = [
            asyncio.create_task(self._pump(reader, far_writer, pair), name="proxy there"),
            asyncio.create_task(self._pump(far_reader, writer, pair), name="proxy back"),
        ]
        pair.tasks = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if pair.near_gone:
                # Silence towards the far end, until it gives up by itself: then reading ends.
                await asyncio.wait(tasks)
        finally:
            self._open.discard(pair)
            pair.abandon()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(65_536)
                if not data:
                    break
                await self._flows.wait()
                if pair.near_gone:
                    continue
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
        if pair.near_gone and writer is pair.far:
            # The near end's reset is not passed on.
            await asyncio.Event().wait()


class _Pair:
    """One connection through the proxy: its near end (who connected) and its far end."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.near_gone = False
        self.tasks: list[asyncio.Task[None]] = []

    def cut_near(self) -> None:
        self.near_gone = True
        self.near.transport.abort()

    def cut_far(self) -> None:
        self.far.transport.abort()
        self.abandon()

    def abandon(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.near.transport.abort()
        self.far.transport.abort()
