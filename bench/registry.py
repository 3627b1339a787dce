"""What the registry costs ingest: 10,000 registered devices behind a closed door, against an open one.

Open: nobody shows credentials, devices are registered as they come. Closed: each device signs in with a
password of its own, may publish on its own topics alone, has a site and a profile, and one that is not
registered is refused. The same devices, topics and payloads in both, on databases of one server. What is
compared is the CPU that ingest uses for a message once everybody is known; the two take turns, and the median
of the pairs' ratios is the figure, so that whatever the machine does meanwhile meets both.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg

from bench import stack
from bench.telemetry import Row, port_of
from caudal.core import db
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.mqtt import packets as pk
from caudal.mqtt.loadclient import LoadFleet, Message
from caudal.registry.access import digest

POINTS = 10
# What publishes holds one end of each connection, and a process may have some 20,000 files open.
AT_ONCE = 5_000

_REGISTER = """
with t as (insert into caudal.tenant(name, unknown_devices) values ('bench', 'refuse') returning id),
s as (insert into caudal.site(tenant_id, name, time_zone)
      select id, 'site', 'America/Sao_Paulo' from t returning id, tenant_id),
p as (insert into caudal.profile(tenant_id, name) select id, 'meter' from t returning id, tenant_id),
d as (insert into caudal.device(tenant_id, site_id, profile_id, name)
      select s.tenant_id, s.id, p.id, 'd' || n from s, p, generate_series(0, $1::int - 1) n
      returning id, tenant_id),
r as (insert into caudal.series(tenant_id, device_id, name)
      select tenant_id, id, 'p' || n from d, generate_series(0, $2::int - 1) n)
insert into caudal.credential(tenant_id, device_id, digest, mosquitto, due_at, expires_at)
select tenant_id, id, $3, '', now() + interval '1 day', now() + interval '1 day' from d"""


def _source(device: int, first: int, count: int) -> Iterator[Message]:
    topic = f"traksense/bench/site/d{device}/telem"
    points = b",".join(b'{"name":"p%d","v":%d.25}' % (number, device % 90) for number in range(POINTS))
    for second in range(first, first + count):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_780_000_000 + second)).encode()
        yield topic, b'{"schema":"v1","ts":"%sZ","points":[%s]}' % (stamp, points)


def _cpu(pid: int) -> float:
    """Seconds of CPU of all its threads, to the nanosecond: clock ticks are too coarse for a few seconds."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


class Door:
    """An ingest process with its database, and devices that publish there."""

    def __init__(self, child: Any, password: bytes | None) -> None:
        self._child = child
        self._password = password
        self._second = 0

    def _connect(self, device: int) -> pk.Connect:
        if self._password is None:
            return pk.Connect(client_id=f"d{device}", keep_alive=120, version=4)
        return pk.Connect(
            client_id=f"d{device}", keep_alive=120, version=4, username=f"t:bench:d:d{device}",
            password=self._password,
        )  # fmt: skip

    async def publish(self, devices: range, each: int) -> tuple[float, float]:
        """(CPU of ingest in microseconds a message, seconds until everybody was let in)."""
        fleet = LoadFleet(
            "127.0.0.1", port_of(self._child), [self._connect(n) for n in devices], keep=False, window=4
        )
        began = time.perf_counter()
        await fleet.open()
        opened = time.perf_counter() - began
        # The first on each connection, whose topic is looked at: devices stay connected for weeks.
        await fleet.run([_source(n, self._second, 1) for n in devices], patience=60)
        before = _cpu(self._child.pid)
        totals = await fleet.run([_source(n, self._second + 1, each) for n in devices], patience=60)
        used = _cpu(self._child.pid) - before
        await fleet.close()
        assert totals.acked == len(devices) * (each + 1), "not everything was acknowledged"
        return used * 1e6 / (len(devices) * each), opened

    def later(self, seconds: int) -> None:
        """The next messages are of later instants."""
        self._second += seconds


async def _database(server: EmbeddedPostgres, name: str) -> str:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(server.url)
    await connection.execute(f"create database {name}")
    await connection.close()
    url = f"{server.url.rsplit('/', 1)[0]}/{name}"
    await migrate(url)
    return url


async def run(quick: bool) -> list[Row]:
    """The suite."""
    devices, rounds, each = (1_000, 3, 5) if quick else (10_000, 5, 8)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    password = b"the same for all: it is looked up by device and digest"
    async with stack.database() as server, AsyncExitStack() as open_parts:
        urls = [await _database(server, name) for name in ("bench_open", "bench_closed")]
        pool = await db.open_pool(urls[1], minimum=1, maximum=1)
        await pool.execute(_REGISTER, devices, POINTS, digest(password), timeout=300)
        assert await pool.fetchval("select count(*) from caudal.device") == devices
        await pool.close()
        environ = {"MQTT_AUTH": "open", "UNKNOWN_TENANTS": "register"}, {"MQTT_AUTH": "required"}
        closed_environ = {**environ[1], "UNKNOWN_TENANTS": "refuse"}
        doors = [
            Door(await open_parts.enter_async_context(stack.ingest(urls[0], **environ[0])), None),
            Door(await open_parts.enter_async_context(stack.ingest(urls[1], **closed_environ)), password),
        ]
        groups = [range(start, min(start + AT_ONCE, devices)) for start in range(0, devices, AT_ONCE)]
        # Everybody once: who is new is looked up, or registered; that is not what is measured.
        for door in doors:
            for group in groups:
                await door.publish(group, 1)
            door.later(2)
        ratios, figures, opening = [], ([], []), ([], [])  # type: ignore[var-annotated]
        for turn in range(rounds):
            for group in groups:
                order = (0, 1) if turn % 2 else (1, 0)
                cost = {}
                for number in order:
                    cost[number], opened = await doors[number].publish(group, each)
                    figures[number].append(cost[number])
                    opening[number].append(opened)
                ratios.append(cost[1] / cost[0])
            for door in doors:
                door.later(each + 1)
            await asyncio.sleep(0.5)
    spread = sorted(ratios)
    return [
        {
            "what": f"{devices} registered devices, door closed, against an open one, {POINTS} points",
            "cpu_us_a_message_open": round(statistics.median(figures[0]), 1),
            "cpu_us_a_message_closed": round(statistics.median(figures[1]), 1),
            "cost_percent": round((statistics.median(ratios) - 1) * 100, 1),
            "pairs": len(ratios),
            "middle_half_percent": [
                round((spread[len(spread) // 4] - 1) * 100, 1),
                round((spread[-len(spread) // 4 - 1] - 1) * 100, 1),
            ],
            "connects_a_second_open": round(len(groups[0]) / statistics.median(opening[0])),
            "connects_a_second_closed": round(len(groups[0]) / statistics.median(opening[1])),
        }
    ]  # fmt: skip
