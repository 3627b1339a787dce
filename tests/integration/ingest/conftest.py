"""The API with a pipeline of its own, called over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from caudal.app import devices
from caudal.app.ingest import build
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.registry.access import AccessSettings
from caudal.registry.mosquitto import MosquittoSettings
from caudal.registry.permissions import Role
from caudal.registry.pki.settings import PkiSettings
from caudal.telemetry.settings import IngestSettings

MAC = "aa:bb:cc:dd:ee:01"
TELEM = "traksense/acme/plant/pump/telem"


def v1(second: int, value: Any = 1.5, point: str = "temp") -> dict[str, Any]:
    return {
        "schema": "v1", "ts": f"2026-03-01T00:00:{second:02}Z",
        "points": [{"name": point, "t": "num", "v": value, "u": "celsius"}],
    }  # fmt: skip


class Http:
    """The API with its own pipeline, called as somebody."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.headers: dict[str, str] = {}

    async def send(self, path: str, body: Any, status: int = 202, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.api.client.post(path, content=content, headers={**self.headers, **headers})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def rows(self) -> list[tuple[str, str, str, Any]]:
        found = await self.api.admin.fetch("select * from public.ts_measure order by ts, device_id, point_id")
        return [(row["tenant_id"], row["device_id"], row["point_id"], row["v_num"]) for row in found]


@pytest.fixture
async def http(unstarted_api: Any, database_url: str) -> AsyncIterator[Http]:
    life = Lifecycle()
    settings = IngestSettings(unknown_tenants="refuse")
    ingest = await build(life, database_url, settings, Metrics(), worker="http")
    await devices.compose(
        life, unstarted_api.parts, ingest, settings, AccessSettings(mqtt_http_secret="broker"), PkiSettings(),
        MosquittoSettings(),
    )  # fmt: skip
    made = Http(await unstarted_api.start())
    made.headers = await made.api.headers("acme", Role.OPERATOR)
    await made.api.tenant("rival")
    yield made
    await made.api.client.aclose()
    await life.stop()
    assert life.failure is None
