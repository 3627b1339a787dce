"""A whole installation on this machine, as processes that a test may kill, with what supervises them."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from caudal.core import db
from caudal.core.eventlog.kafka import KafkaLog
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.core.supervisor import Child, StartError, child_environ
from caudal.messaging import topics
from caudal.registry.tenants import create_tenant
from tests.ports import free_port

LEASE = 1.0
PARTITIONS = 4
KEY = "x" * 40
COMMANDS = {
    "api": ("caudal", "api"),
    "router": ("caudal", "router"),
    "connector": ("caudal", "connector", "run", "whatsapp"),
    "gateway": ("caudal", "realtime"),
}


class Stack:
    """A durable PostgreSQL, and processes named as `COMMANDS` (`router two` is another router).

    `api two` is another API on a port of its own.

    `broker` is the Kafka broker, None for the log in PostgreSQL; `settings` come beside the usual ones.
    """

    def __init__(self, folder: Path, broker: Any, names: tuple[str, ...], settings: dict[str, str]) -> None:
        self.folder = folder
        self.broker = broker
        self.server = EmbeddedPostgres(folder / "pg", port=free_port())
        self.kills: list[str] = []
        self.port = free_port()
        self.second_port = free_port()
        self.gateway_port = free_port()
        self.names = names
        self.settings = settings
        self.children: dict[str, Child] = {}
        # Who kills and who watches would else both start what they found dead.
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """The API's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def second_url(self) -> str:
        """That of `api two`."""
        return f"http://127.0.0.1:{self.second_port}"

    @property
    def log_settings(self) -> LogSettings:
        return LogSettings(
            log="kafka" if self.broker else "postgres", log_lease_seconds=LEASE, log_partitions=PARTITIONS,
            kafka_bootstrap_servers=self.broker.servers if self.broker else "none:1",
        )  # fmt: skip

    async def start(self) -> None:
        await self.server.start()
        await migrate(self.server.url)
        self.pool = await db.open_pool(self.server.url, minimum=1, maximum=8)
        if not await self.pool.fetchval("select count(*) from caudal.tenant"):
            await create_tenant(self.pool, "default")
        environ = child_environ(
            os.environ, DATABASE_URL=self.server.url, CAUDAL_MASTER_KEY=KEY, API_PORT=str(self.port),
            ROUTER_METRICS_PORT="0", WHATSAPP_METRICS_PORT="0", REALTIME_PORT=str(self.gateway_port),
            LOG_LEASE_SECONDS=str(LEASE), LOG=self.log_settings.log, RATE_LIMIT_ADDRESS="0",
            KAFKA_BOOTSTRAP_SERVERS=self.log_settings.kafka_bootstrap_servers,
            LOG_PARTITIONS=str(PARTITIONS), FILES_URL=str(self.folder / "files"), **self.settings,
        )  # fmt: skip
        for name in self.names:
            out = self.folder / f"{name}.log"
            own = {**environ, "API_PORT": str(self.second_port)} if name == "api two" else environ
            self.children[name] = Child(name, COMMANDS[name.split()[0]], own, out)
        await asyncio.gather(*(self.up(name) for name in self.children))

    async def log(self) -> Any:
        """This process's own log, started."""
        kind: Any = KafkaLog if self.broker else PostgresLog
        made = kind(self.pool, self.server.url, self.log_settings)
        await made.start()
        await made.ensure(topics.topics(PARTITIONS))
        return made

    async def kill(self, name: str) -> None:
        """SIGKILL, and up again."""
        self.kills.append(name)
        async with self._turn:
            if name == "postgres":
                self.server.kill()
                await self.server.start()
            elif name == "kafka":
                await asyncio.to_thread(self.broker.kill)
                await asyncio.to_thread(self.broker.start)
            else:
                child = self.children[name]
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)
                    await child.died()
                await self.up(name)

    async def up(self, name: str) -> None:
        for _ in range(5):
            try:
                await self.children[name].start()
            except StartError:
                continue
            return
        pytest.fail(f"{name} did not come back:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")

    async def watch(self) -> None:
        """Whatever died of another's death comes back, as under any supervisor."""
        while True:
            for name, child in self.children.items():
                async with self._turn:
                    if child.pid is not None and not alive(child.pid):
                        await child.died()
                        await self.up(name)
            await asyncio.sleep(0.2)

    async def standing(self) -> str:
        """Where everything stands, for whoever reads of a failure."""
        rows = await self.pool.fetch(
            "select state, parked, count(*) from caudal.delivery group by 1, 2 union all"
            " select 'unrouted', waiting, count(*) from caudal.message where routed_at is null group by 1, 2"
        )
        lags = await self.pool.fetch(
            "select g.name, t.name, g.partition, p.next_offset - g.committed, g.owner"
            " from caudal.log_group g join caudal.log_partition p using (topic_id, partition)"
            " join caudal.log_topic t on t.id = topic_id where p.next_offset > g.committed"
        )
        logs = {name: (self.folder / f"{name}.log").read_text()[-1500:] for name in self.children}
        return f"{[tuple(r) for r in rows]} {[tuple(r) for r in lags]} {self.kills} {logs}"

    async def stop(self) -> None:
        for child in self.children.values():
            await child.stop()
        await self.pool.close()
        await self.server.stop()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def stack(broker: Any, *names: str, **settings: str) -> AsyncIterator[Stack]:
    """A started one."""
    with tempfile.TemporaryDirectory(prefix="caudal-crash-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        made = Stack(Path(folder), broker, names, settings)
        try:
            await made.start()
            yield made
        finally:
            await made.stop()


async def sign_in(base: str, username: str = "ana") -> dict[str, str]:
    """Headers of a new person."""
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:
        person = {"username": username, "password": "secret", "email": f"{username}@example.com"}
        (await client.post("/auth/register", json=person)).raise_for_status()
        token = (await client.post("/auth/token", json=person)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}
