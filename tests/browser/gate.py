"""A door between a browser and the site that can be shut: what a page does when its server is gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Gate:
    """Forwards TCP to `port` from a port of its own (`url`); runs in the loop that makes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """Where a browser comes in."""
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> None:
        """Let through; the second time on the same port."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Let nobody in, and break every connection."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, outer}
        self._open |= ends
        pipes = [asyncio.create_task(_pipe(reader, outer), name="in"),
                 asyncio.create_task(_pipe(inner, writer), name="out")]  # fmt: skip
        try:
            await asyncio.wait(pipes)
        finally:
            self._open -= ends


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.transport.abort()
