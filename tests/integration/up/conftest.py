"""`caudal up` as a process on a directory of its own."""

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

import pytest

from tests.ports import free_port

ENVIRON = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "MQTT_URL")}


class Up:
    """One run of `caudal up` on a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: asyncio.subprocess.Process | None = None
        self.environ = dict(ENVIRON)

    async def start(self, *arguments: str, **environ: str) -> dict[str, str]:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "caudal", "up", "--data", str(self.directory), *arguments,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            # The usual one may be taken between a look at it and its use, by another test's.
            env={"SANDBOX_PORT": str(free_port()), **self.environ, **environ},
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
