"""The platform of the connector tests, with its workers as processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from caudal.core.supervisor import Child, child_environ
from tests.messaging.connectors.conftest import QUICK, Platform
from tests.messaging.connectors.conftest import platform as platform

MakeWorker = Callable[..., Awaitable[Child]]


@pytest.fixture
async def connector(platform: Platform, tmp_path: Path) -> AsyncIterator[MakeWorker]:
    """Starts `caudal connector run NAME` and returns it once it is ready."""
    started: list[Child] = []

    async def make(name: str, **settings: Any) -> Child:
        words = {key.upper(): str(value) for key, value in {**QUICK, **settings}.items()}
        environ = child_environ(
            {},
            PATH="/usr/bin:/bin",
            DATABASE_URL=platform.url,
            CAUDAL_MASTER_KEY="x" * 40,
            WHATSAPP_API_BASE=platform.sandbox.url,
            INSTAGRAM_API_BASE=platform.sandbox.url,
            WHATSAPP_METRICS_PORT="0",
            INSTAGRAM_METRICS_PORT="0",
            LOG_LEASE_SECONDS="1",
            **words,
        )
        child = Child(
            f"{name} {len(started)}",
            ("caudal", "connector", "run", name),
            environ,
            tmp_path / f"{len(started)}.log",
        )
        await child.start(timeout=60)
        started.append(child)
        return child

    yield make
    for child in started:
        await child.stop()
