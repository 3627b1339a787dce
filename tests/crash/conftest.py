"""Real processes on a real, durable PostgreSQL, to be killed.

`CAUDAL_TEST_KILLS` is how many kills in all (20 when left out); `CAUDAL_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import Child, child_environ
from tests.ports import free_port

from .proxy import StallingProxy

SHARE = int(os.environ.get("CAUDAL_TEST_KILLS", "20")) / 20


def rounds(usual: int) -> Iterator[int]:
    """Numbers of rounds: `usual` kills of 20, or as many more as were asked for. Says how long each took."""
    most = max(1, round(usual * SHARE))
    for number in range(1, most + 1):
        began = time.monotonic()
        yield number
        print(f"round {number} of {most}: {time.monotonic() - began:.1f} s", flush=True)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Seeded; the seed is printed when the test fails."""
    seed = int(os.environ.get("CAUDAL_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"CAUDAL_TEST_SEED={seed}")
    made = random.Random(seed)
    made.number = seed  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of a migrated server that does not run, to be copied."""
    with tempfile.TemporaryDirectory(prefix="caudal-crash-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)

        async def make() -> None:
            server = EmbeddedPostgres(Path(folder) / "pg")
            await server.start()
            await migrate(server.url)
            await server.stop()

        asyncio.run(make())
        yield Path(folder) / "pg"


@pytest.fixture
async def postgres(cluster: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server with the settings that `caudal up` runs it with, migrated, always on the same port."""
    with tempfile.TemporaryDirectory(prefix="caudal-crash-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        # With its owner: as root the server runs as somebody else.
        subprocess.run(["cp", "-a", str(cluster), f"{folder}/pg"], check=True)
        server = EmbeddedPostgres(Path(folder) / "pg", port=free_port())
        await server.start()
        yield server
        await server.stop()


class Ingest:
    """`caudal ingest` as a process of its own, on one port for as long as the test runs."""

    def __init__(self, folder: Path, database_url: str, **environ: str) -> None:
        self.port = free_port()
        values = {
            "DATABASE_URL": database_url, "UNKNOWN_TENANTS": "register", "MQTT_PORT": str(self.port),
            "METRICS_PORT": "0", "STATE_DIR": str(folder / "state"), **environ,
        }  # fmt: skip
        self.log = folder / "ingest.log"
        self._child = Child("ingest", ["caudal", "ingest"], child_environ(os.environ, **values), self.log)

    async def start(self) -> None:
        """Return once it is ready."""
        await self._child.start()

    async def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        pid = self._child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await self._child.died()

    async def stop(self) -> None:
        """In order."""
        await self._child.stop()


@pytest.fixture
async def make_ingest(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await make_ingest(database_url, **environ)`: a running ingest process."""
    made: list[Ingest] = []

    async def make(database_url: str, **environ: str) -> Ingest:
        folder = tmp_path / f"ingest{len(made)}"
        folder.mkdir()
        made.append(Ingest(folder, database_url, **environ))
        await made[-1].start()
        return made[-1]

    yield make
    for ingest in made:
        await ingest.stop()


@pytest.fixture
async def make_proxy() -> AsyncIterator[Callable[..., Any]]:
    """`await make_proxy(port)`: a proxy to that port."""
    made: list[StallingProxy] = []

    async def make(port: int) -> StallingProxy:
        made.append(StallingProxy(port))
        await made[-1].start()
        return made[-1]

    yield make
    for proxy in made:
        await proxy.stop()


class Mosquitto:
    """Debian's broker, which keeps its sessions on disk when it is stopped in order."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self._program = program
        self._config = folder / "mosquitto.conf"
        # As root it would become a user who cannot reach the folder; and what it drops nobody can store.
        self._config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once it answers."""
        self._process = await asyncio.create_subprocess_exec(
            self._program, "-c", str(self._config),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    # It has no way to say that it listens.
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def stop(self) -> None:
        """In order: it writes down what it holds."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await process.wait()


@pytest.fixture
async def mosquitto(require: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Mosquitto]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(require("mosquitto"), folder)
    await broker.start()
    yield broker
    await broker.stop()
