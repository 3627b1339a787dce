"""What the API needs for devices: ingest over HTTP, access rules for brokers, certificates, claims."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from caudal.app.doors import IngestParts, access_rules
from caudal.app.ingest import build
from caudal.core import logs
from caudal.core.errors import CaudalError
from caudal.core.lifecycle import Lifecycle
from caudal.core.settings import load
from caudal.registry import mosquitto, quarantine
from caudal.registry.access import AccessSettings
from caudal.registry.devices_http import DeviceSignIn
from caudal.registry.mosquitto import MosquittoSettings
from caudal.registry.pki import renewal, revocation
from caudal.registry.pki.settings import PkiSettings
from caudal.telemetry.replays import release_held
from caudal.telemetry.settings import IngestSettings

if TYPE_CHECKING:
    from caudal.app.api import ApiParts

log = logs.get("devices")

SWEEP_SECONDS = 30.0
INVITE_SECONDS = 3600.0


class Release:
    """Implements `quarantine.Release` with this process's pipeline."""

    def __init__(self, made: IngestParts) -> None:
        self._made = made

    async def release(self, tenant: str, device: str) -> int:
        """Send what the device sent through ingest; returns the number of messages."""
        return await release_held(self._made.pool, self._made.pipeline, tenant, device)

    async def sweep(self) -> None:
        """Finish the claims whose release was interrupted; for the life of the process."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                async with self._made.pool.acquire() as connection:
                    left = await quarantine.unreleased(connection)
                for tenant, device in left:
                    count = await self.release(tenant, device)
                    log.info("held messages released", tenant=tenant, device=device, messages=count)
            except (
                OSError,
                TimeoutError,
                CaudalError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
            ) as error:
                log.warning("held messages could not be released; trying again", error=repr(error))


async def invite_for_ever(pool: asyncpg.Pool[Any], settings: PkiSettings) -> None:
    """Ask gateways to renew their certificates, as many a day as may."""
    while True:
        try:
            async with pool.acquire() as connection:
                if count := await renewal.invite(connection, settings):
                    log.info("gateways asked to renew their certificates", gateways=count)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("gateways could not be asked to renew; trying again", error=repr(error))
        await asyncio.sleep(INVITE_SECONDS)


async def bring(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process the services of devices."""
    environ = made.environ
    ingest_settings = load(IngestSettings, environ)
    worker = f"{socket.gethostname()}:{os.getpid()}/http"
    ingest = await build(life, made.database_url, ingest_settings, made.metrics, worker=worker)
    await compose(
        life, made, ingest, ingest_settings, load(AccessSettings, environ), load(PkiSettings, environ),
        load(MosquittoSettings, environ),
    )  # fmt: skip


async def compose(
    life: Lifecycle,
    made: ApiParts,
    ingest: IngestParts,
    ingest_settings: IngestSettings,
    access_settings: AccessSettings,
    pki_settings: PkiSettings,
    broker: MosquittoSettings,
) -> None:
    """Add the services to `made`, and start the tasks that keep lists, files and claims going."""
    rules = access_rules(ingest.pipeline)
    release = Release(ingest)
    made.authenticator.devices = DeviceSignIn(made.pool)
    made.services.update(
        {
            "pool": made.pool,
            "pipeline": ingest.pipeline,
            "ingest_pool": ingest.pool,
            "ingest_settings": ingest_settings,
            "rules": rules,
            "access_settings": access_settings,
            "pki_settings": pki_settings,
            "release": release,
        }
    )
    life.spawn("claims", release.sweep())
    life.spawn("revocation list", revocation.keep_fresh(made.pool, made.sealer, pki_settings.pki_crl_hours))
    life.spawn("renewals", invite_for_ever(ingest.pool, pki_settings))
    if broker.mosquitto_dir:
        pid_file = Path(broker.mosquitto_pid_file) if broker.mosquitto_pid_file else None
        life.spawn(
            "mosquitto files",
            mosquitto.keep_written(
                ingest.pool, ingest.connect, rules, Path(broker.mosquitto_dir), pid_file,
                admin_password=access_settings.mqtt_admin_password,
            ),
        )  # fmt: skip
