"""`caudal up`, as a person starts it: a process, a directory, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import paho.mqtt.client as paho
import pytest

ENVIRON = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "MQTT_URL")}


class Up:
    """One run of `caudal up` on a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, str]:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "caudal", "up", "--data", str(self.directory),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRON, start_new_session=True,
        )  # fmt: skip
        ready = self.directory / "endpoints.json"
        gone = asyncio.create_task(self.process.wait())
        while not ready.exists():
            if gone.done():
                output = await self.process.stdout.read() if self.process.stdout else b""
                pytest.fail(output.decode())
            await asyncio.sleep(0.05)  # a file has no event to wait for
        gone.cancel()
        found: dict[str, str] = json.loads(ready.read_text())
        return found

    async def stop(self) -> tuple[int, float]:
        """Ctrl-C; returns the exit status and the seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(self.process.communicate(), 15)
        return self.process.returncode or 0, time.monotonic() - began


@pytest.fixture
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    directory = tmp_path_factory.mktemp("up") / "data"
    made = Up(directory)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


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
