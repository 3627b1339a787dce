"""How a process tells whoever started it that it is ready, and learns that they are gone.

The starter passes one end of a socket pair and names its number in `CAUDAL_STARTER_FD`. The process writes
one line of JSON, its endpoints, once everything answers; when the other end closes, it stops in order: no
part outlives its platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

import msgspec

from caudal.core.lifecycle import Lifecycle

VARIABLE = "CAUDAL_STARTER_FD"


async def announce(life: Lifecycle, environ: Mapping[str, str], endpoints: Mapping[str, str]) -> None:
    """Say that this process is ready. Without a starter it does nothing."""
    number = environ.get(VARIABLE)
    if not number:
        return
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=int(number)))
    writer.write(msgspec.json.encode(dict(endpoints)) + b"\n")
    await writer.drain()

    async def watch() -> None:
        try:
            # Reset, when it went without having read our line.
            with contextlib.suppress(OSError):
                await reader.read()
        finally:
            writer.close()
        life.request_stop()
        await asyncio.Event().wait()

    life.spawn("starter watch", watch())
