"""The HTTP server's socket, and its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from caudal.app import server
from caudal.app.server import HttpServer


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...


def test_two_that_start_at_once_do_not_share_a_port() -> None:
    first = HttpServer(_nothing, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        HttpServer(_nothing, "127.0.0.1", first.port)
    first._socket.close()


async def test_it_ends_when_it_is_told_to_and_not_at_its_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TICK", 3600.0)
    made = HttpServer(_nothing, "127.0.0.1", 0)
    task = asyncio.create_task(made.serve(), name="http server")
    await made.started()
    await made.stop()
    async with asyncio.timeout(30):
        await task
