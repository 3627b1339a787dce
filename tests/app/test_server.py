"""The HTTP server's socket."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.app.server import HttpServer


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...


def test_two_that_start_at_once_do_not_share_a_port() -> None:
    first = HttpServer(_nothing, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        HttpServer(_nothing, "127.0.0.1", first.port)
    first._socket.close()
