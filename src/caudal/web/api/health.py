"""Health and metrics, for those who watch us."""

from __future__ import annotations

from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from caudal.core.metrics import Metrics
from caudal.web.guards import machinery
from caudal.web.health import Health, Report
from caudal.web.inject import Given

WATCHED = [machinery("watchdogs and load balancers have no account")]

DOWN = {503: ResponseSpec(Report, description="A part does not answer", generate_examples=False)}


@get(["/health", "/health/ready", "/actuator/health"], guards=WATCHED, responses=DOWN)
async def ready(health: Given[Health]) -> Response[Report]:
    """Whether every part that requests need answers now."""
    report = await health.report()
    return Response(report, status_code=200 if report.status == "UP" else 503)


@get("/health/live", guards=WATCHED, sync_to_thread=False)
def live() -> dict[str, str]:
    """Whether this process answers at all."""
    return {"status": "UP"}


@get("/actuator/prometheus", guards=WATCHED, sync_to_thread=False, media_type="text/plain")
def prometheus(metrics: Given[Metrics]) -> Response[bytes]:
    """The metrics of this process."""
    return Response(
        generate_latest(metrics.registry),
        media_type="text/plain",
        headers={"content-type": CONTENT_TYPE_LATEST},
    )


ROUTES = [ready, live, prometheus]
