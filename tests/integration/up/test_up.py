"""`caudal up`, as a person starts it: a process, a directory, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import paho.mqtt.client as paho
import pytest

from tests.integration.up.conftest import ENVIRON, Up
from tests.mqtt.conftest import Mosquitto
from tests.mqtt.conftest import free_port as mosquitto_port


def publish(url: str, at: str, device: str = "chiller") -> None:
    host, _, rest = url.removeprefix("mqtt://").rpartition("@")
    user, _, password = host.partition(":")
    address, _, port = rest.partition(":")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    if user:
        client.username_pw_set(user, password)
    client.connect(address, int(port))
    client.loop_start()
    payload = json.dumps({"schema": "v1", "ts": at, "points": [{"name": "t", "v": 21.5}]})
    client.publish(f"traksense/acme/plant/{device}/telem", payload, qos=1).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


async def rows(url: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch("select ts, v_num from ts_measure where tenant_id = 'acme'"))
    finally:
        await connection.close()


@pytest.mark.slow
async def test_up_serves_stops_in_order_and_keeps_what_it_acknowledged(up: Up) -> None:
    endpoints = await up.start()
    assert {"database_url", "mqtt_url", "http_url", "metrics_url"} <= endpoints.keys()
    await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:00Z")
    assert len(await rows(endpoints["database_url"])) == 1

    second = subprocess.run(
        [sys.executable, "-m", "caudal", "up", "--data", str(up.directory)],
        capture_output=True, text=True, env=ENVIRON, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert "up on" in second.stderr

    status, seconds = await up.stop()
    assert status == 0
    assert seconds < 10
    assert not (up.directory / "endpoints.json").exists()

    endpoints = await up.start()
    await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:01Z")
    assert len(await rows(endpoints["database_url"])) == 2


@pytest.mark.slow
async def test_what_a_killed_up_left_behind_is_cleared_by_the_next(up: Up) -> None:
    endpoints = await up.start()
    await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:00Z")
    assert up.process is not None
    up.process.kill()
    await up.process.wait()
    (up.directory / "endpoints.json").unlink()
    endpoints = await up.start()
    assert len(await rows(endpoints["database_url"])) == 1


async def writers(url: str) -> int:
    """Processes that have stored something."""
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                "select count(distinct split_part(writer, '/', 1)) from caudal.ledger where messages > 0"
            )
        )
    finally:
        await connection.close()


@pytest.mark.slow
async def test_several_processes_share_a_port_that_is_not_the_usual_one(up: Up) -> None:
    with contextlib.ExitStack() as taken:
        for port in (1883, 5432, 8080, 9100):
            listener = taken.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody has it already: as good
                listener.bind(("127.0.0.1", port))
                listener.listen()
        anywhere = (
            "API",
            "MQTT",
            "REALTIME",
            "METRICS",
            "ROUTER_METRICS",
            "UPKEEP_METRICS",
            "APPRISE_METRICS",
        )
        endpoints = await up.start("--ingest", "2", **{f"{what}_PORT": "0" for what in anywhere})
    # 0 is any port: what is announced is the one that was found.
    assert not [url for url in endpoints.values() if urlsplit(url).port == 0]
    for name, url in endpoints.items():
        if url.startswith("http"):
            path = "/health/live" if name == "http_url" else ""
            answer = await asyncio.to_thread(httpx.get, url + path)
            assert answer.status_code == 200, (name, url)
    assert not endpoints["mqtt_url"].endswith(":1883")
    assert endpoints["metrics_url"] != endpoints["ingest_2_metrics_url"]
    for number in range(16):
        # Whose a connection is the kernel decides; sixteen that all go one way are one run in 32,768.
        await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:00Z", f"d{number}")
    assert len(await rows(endpoints["database_url"])) == 16
    assert await writers(endpoints["database_url"]) == 2
    assert await up.stop() < (0, 10)


@pytest.mark.slow
async def test_behind_a_broker_several_workers_split_the_load(
    up: Up, require: Callable[[str], str], tmp_path: Path
) -> None:
    broker = Mosquitto(require("mosquitto"), tmp_path, mosquitto_port())
    await broker.start()
    try:
        url = f"mqtt://127.0.0.1:{broker.port}"
        endpoints = await up.start("--ingest", "2", MQTT_URL=url)
        assert endpoints["mqtt_url"] == url
        for number in range(16):
            await asyncio.to_thread(publish, url, "2026-01-01T00:00:00Z", f"d{number}")
        async with asyncio.timeout(20):
            while len(await rows(endpoints["database_url"])) < 16:
                await asyncio.sleep(0.05)  # a broker acknowledges before we have it
        assert await writers(endpoints["database_url"]) == 2
        connection = await asyncpg.connect(endpoints["database_url"])
        assert await connection.fetchval("select sum(duplicates) from caudal.ledger") == 0
        await connection.close()
    finally:
        await up.stop()
        await broker.stop()


@pytest.mark.slow
async def test_a_killed_database_comes_back_by_itself(up: Up) -> None:
    endpoints = await up.start()
    await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:00Z")
    pid = int((up.directory / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    # Its PUBACK comes when it is stored, so when the server is back: at its old address, for tools too.
    await asyncio.to_thread(publish, endpoints["mqtt_url"], "2026-01-01T00:00:01Z")
    assert len(await rows(endpoints["database_url"])) == 2
    async with httpx.AsyncClient(timeout=5) as client, asyncio.timeout(60):
        while (await client.get(f"{endpoints['http_url']}/health")).status_code != 200:
            await asyncio.sleep(0.1)  # nothing tells us
    status, _ = await up.stop()
    assert status == 0
