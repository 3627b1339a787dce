"""The upkeep process: rollups, partitions, retention. One is enough; more take over from each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import msgspec

from caudal.app.operations import serve_operations
from caudal.app.part import Starter
from caudal.core import db, logs
from caudal.core.addresses import address
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.readiness import announce
from caudal.core.settings import load, setting
from caudal.insight.rollups import Refresher
from caudal.registry.usage import measure_for_ever
from caudal.telemetry.maintenance import Maintenance, RetentionSettings
from caudal.telemetry.watch import Watch
from caudal.web.health import Health
from caudal.web.settings import WebSettings

log = logs.get("upkeep")

ROLE = "caudal_upkeep"


class UpkeepSettings(msgspec.Struct, frozen=True):
    """When hours are rolled up, and where this is watched."""

    rollup_grace_seconds: Annotated[
        int, setting("Seconds after its end that an hour is left to late-comers", ge=0, le=3600)
    ] = 300
    upkeep_metrics_port: Annotated[int, setting("Port of upkeep's metrics and health", ge=0, le=65535)] = 8087


async def parts(
    life: Lifecycle, url: str, settings: UpkeepSettings, retention: RetentionSettings, metrics: Metrics
) -> Health:
    """Start the jobs on the database at `url`; returns what tells whether it answers."""
    pool = await db.open_pool(url, minimum=1, maximum=4, role=ROLE, name="caudal upkeep")
    life.on_stop("upkeep pool", pool.close)
    refresher = Refresher(pool, metrics, grace=timedelta(seconds=settings.rollup_grace_seconds))
    maintenance = Maintenance(pool, retention, metrics)
    life.spawn("refresher", refresher.run())
    life.spawn("maintenance", maintenance.run())
    life.spawn("watch", Watch(pool, metrics).run())
    life.spawn("usage", measure_for_ever(pool))
    return Health(pool)


def starter(environ: Mapping[str, str] = os.environ) -> Starter:
    """`caudal upkeep`: the background jobs as a process of its own, all settings from `environ`."""
    database = db.url_of(environ)
    settings = load(UpkeepSettings, environ)
    retention = load(RetentionSettings, environ)
    web = load(WebSettings, environ)

    async def start(life: Lifecycle) -> dict[str, str]:
        metrics = Metrics()
        health = await parts(life, database, settings, retention, metrics)
        server = await serve_operations(life, metrics, health, web.api_host, settings.upkeep_metrics_port)
        endpoints = {"upkeep_metrics_url": address("http", web.api_host, server.port, "/actuator/prometheus")}
        await announce(life, environ, endpoints)
        log.info("upkeep is ready", **endpoints)
        return endpoints

    return start
