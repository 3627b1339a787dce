"""A pipeline with its endpoint on a free port, over the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from caudal.app.ingest import OpenHooks, build_pipeline
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.settings import EndpointSettings
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import IngestSettings

MakePipeline = Callable[..., Awaitable[Pipeline]]


@pytest.fixture
async def life(database_url: str) -> AsyncIterator[Lifecycle]:
    made = Lifecycle()
    yield made
    await made.stop()
    assert made.failure is None


@pytest.fixture
def make_pipeline(life: Lifecycle, database_url: str) -> MakePipeline:
    async def make(**overrides: object) -> Pipeline:
        settings = IngestSettings(**{"unknown_tenants": "register", **overrides})  # type: ignore[arg-type]
        return await build_pipeline(life, database_url, settings, Metrics(), worker="test")

    return make


@pytest.fixture
async def endpoint(life: Lifecycle, make_pipeline: MakePipeline) -> Endpoint:
    made = Endpoint(EndpointSettings(port=0), await make_pipeline(), OpenHooks())
    await made.start()
    life.on_stop("endpoint", made.close)
    return made
