"""`caudal up`, as a person starts it: a process, a directory, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import asyncpg
import paho.mqtt.client as paho
import pytest

from tests.integration.up.conftest import ENVIRON, Up


def publish(url: str, at: str) -> None:
    host, _, rest = url.removeprefix("mqtt://").rpartition("@")
    user, _, password = host.partition(":")
    address, _, port = rest.partition(":")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.username_pw_set(user, password)
    client.connect(address, int(port))
    client.loop_start()
    payload = json.dumps({"schema": "v1", "ts": at, "points": [{"name": "t", "v": 21.5}]})
    client.publish("traksense/acme/plant/chiller/telem", payload, qos=1).wait_for_publish(20)
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
