"""The embedded server, where somebody else is quicker."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import asyncpg
import pytest

from caudal.core import postgres
from caudal.core.postgres import EmbeddedPostgres


async def test_a_port_that_is_taken_at_the_last_moment_is_changed_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    real = postgres.free_port
    with (
        socket.create_server(("127.0.0.1", 0)) as quicker,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        taken = quicker.getsockname()[1]

        def free_port(preferred: int = 0, host: str = "127.0.0.1") -> int:
            looked.append(preferred)
            return taken if len(looked) == 1 else real(preferred, host)

        monkeypatch.setattr(postgres, "free_port", free_port)
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg", port=taken)
        await server.start()
        try:
            assert server.port != taken
            connection = await asyncpg.connect(server.url)
            assert await connection.fetchval("show port") == str(server.port)
            assert await connection.fetchval("show wal_init_zero") == "off"
            await connection.close()
        finally:
            await server.stop()
    assert looked == [taken, 0]
