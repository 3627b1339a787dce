"""The embedded server: somebody else is quicker, it dies, it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

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


@pytest.mark.parametrize(
    ("ends_by", "said"),
    [(signal.SIGKILL, "PostgreSQL died; starting it again"), (signal.SIGINT, "PostgreSQL was stopped")],
)
async def test_it_comes_back_from_death_and_stays_stopped_when_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, ends_by: signal.Signals, said: str
) -> None:
    monkeypatch.setattr(postgres, "PAUSE", 0.1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "pg", port=postgres.free_port())
        await server.start()
        keeper = asyncio.create_task(server.keep(), name="keeper")
        try:
            pid = int((server.data / "postmaster.pid").read_text().split()[0])
            with capture_logs() as logged:
                os.kill(pid, ends_by)
                async with asyncio.timeout(30):
                    while not logged:
                        await asyncio.sleep(0.02)  # a log line has no event
            assert logged[0]["event"].startswith(said)
            if ends_by == signal.SIGKILL:
                async with asyncio.timeout(60):
                    while not await answers(server.url):
                        await asyncio.sleep(0.1)
            else:
                assert not keeper.done()
                assert not await answers(server.url)
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            await server.stop()


async def answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
