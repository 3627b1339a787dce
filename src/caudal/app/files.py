"""What the API brings of files and sockets: the object store, its sweep, the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from caudal.app.messaging import ROLE, deliveries_of
from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.seal import Sealer
from caudal.core.settings import load
from caudal.messaging import files
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.links import Links
from caudal.messaging.media import MediaFiles
from caudal.messaging.objects import open_objects
from caudal.messaging.realtime import Hub
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.uploads import Uploads
from caudal.registry.settings import PeopleSettings

if TYPE_CHECKING:
    from caudal.app.api import ApiParts


async def messaging_pool(life: Lifecycle, made: ApiParts) -> asyncpg.Pool[Any]:
    """The API's few connections for what concerns every tenant: the sweep, and sockets."""
    pool: asyncpg.Pool[Any] | None = made.__dict__.get("messaging_pool")
    if pool is None:
        pool = await db.open_pool(
            made.database_url, minimum=1, maximum=4, role=ROLE, name="caudal api, messaging"
        )
        life.on_stop("messaging pool", pool.close)
        made.__dict__["messaging_pool"] = pool
    return pool


async def bring_sockets(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process sockets on its own port."""
    await add_sockets(life, made, load(RealtimeSettings, made.environ))


async def add_sockets(life: Lifecycle, made: ApiParts, settings: RealtimeSettings) -> Hub:
    """Give an API process the hub of sockets."""
    pool = await messaging_pool(life, made)
    deliveries = await deliveries_of(life, pool, made.database_url, made.environ)
    hub = Hub(pool, made.database_url, settings, made.metrics, deliveries)
    await hub.start(life)
    made.services["hub"] = hub
    return hub


async def bring(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process the service of files, settings from the environment."""
    await add(life, made, load(FileSettings, made.environ))


def media(
    pool: asyncpg.Pool[Any], environ: Mapping[str, str], sealer: Sealer, metrics: Metrics
) -> MediaFiles:
    """The files of a connector, settings from `environ`. `pool` runs as `caudal_messaging`."""
    settings = load(FileSettings, environ)
    service = files.FileService(pool, open_objects(settings), settings, Links(sealer), metrics)
    return MediaFiles(pool, service, load(PeopleSettings, environ).public_url)


async def add(life: Lifecycle, made: ApiParts, settings: FileSettings) -> files.FileService:
    """Give an API process the service of files."""
    objects = open_objects(settings)
    service = files.FileService(made.pool, objects, settings, Links(made.sealer), made.metrics)
    made.services["files"] = service
    made.services["uploads"] = Uploads(made.pool, service)
    made.health.add("object store", objects.ping)
    pool = await messaging_pool(life, made)
    life.spawn("sweep of files", files.keep_swept(pool, objects, settings.files_upload_hours))
    return service
