"""What the command-line tools stand on: the installation they mean, a connection to it, a pipeline.

A tool that puts messages back runs the same pipeline as ingest does, in its own process: it needs nothing
but the database, and takes the very path that the messages took first.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from caudal.app.ingest import ROLE, build_pipeline
from caudal.core import db
from caudal.core.errors import CaudalError, InvalidInput
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.settings import load
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.settings import IngestSettings
from caudal.telemetry.simulation import Machine
from caudal.telemetry.topics import Kind, Scheme

KEPT = ("topic_templates", "topic_tenant")
"""What `caudal up` keeps beside its endpoints, where it was set: tools must know it."""


class NoInstallation(CaudalError):
    """Nobody said which installation is meant, or it is not up."""

    code = "no_installation"


class Installation:
    """Where an installation is: by the environment, or by the directory of a `caudal up` that is running."""

    def __init__(self, data: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        self._data = data
        self._environ = environ

    @property
    def _path(self) -> Path:
        return (self._data or Path("data")) / "endpoints.json"

    def _kept(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}

    def _endpoint(self, name: str, variable: str) -> str:
        if self._data is None and (named := self._environ.get(variable)):
            return named
        path = self._path
        try:
            found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            raise NoInstallation(
                f"{path} is not there: nothing is up on {path.parent}. Start it with `caudal up --data"
                f" {path.parent}`, name another directory with --data, or set {variable}."
            ) from None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise NoInstallation(f"{path} cannot be read: {error}. Set {variable} instead.") from None
        if name not in found:
            raise NoInstallation(f"{path} names no {name}. Set {variable} instead.")
        return found[name]

    @property
    def database_url(self) -> str:
        """An administrator's connection string. Raises NoInstallation."""
        return self._endpoint("database_url", "DATABASE_URL")

    @property
    def mqtt_url(self) -> str:
        """Where to publish, with credentials that may. Raises NoInstallation."""
        return self._endpoint("mqtt_url", "MQTT_URL")

    @property
    def http_url(self) -> str:
        """The API. Raises NoInstallation."""
        return self._endpoint("http_url", "API_URL")

    @property
    def metrics_urls(self) -> tuple[str, ...]:
        """The metrics page of each process of ingest. Raises NoInstallation."""
        first = self._endpoint("metrics_url", "METRICS_URL")
        if self._data is None and self._environ.get("METRICS_URL"):
            return (first,)
        others = {
            name: url for name, url in self._kept().items() if re.fullmatch(r"ingest_\d+_metrics_url", name)
        }
        return (first, *others.values())

    @property
    def scheme(self) -> Scheme:
        """Its topics. Raises SettingsError.

        What `caudal up` was given is in its endpoints.json; elsewhere TOPIC_TEMPLATES and TOPIC_TENANT say.
        """
        settings = self.ingest_settings
        return Scheme(settings.topic_templates, settings.topic_tenant)

    def topic(self, kind: Kind, *, tenant: str, **levels: str) -> str:
        """Where a device of `tenant` publishes. Raises InvalidInput, SettingsError."""
        try:
            return self.scheme.build(kind, tenant=tenant, **levels)
        except ValueError as error:
            raise InvalidInput(f"{str(error)[:1].upper()}{str(error)[1:]}. Give other names.") from None

    @property
    def ingest_settings(self) -> IngestSettings:
        """As ingest of that installation has them, so far as one can know from outside."""
        overrides: dict[str, Any] = {"ingest_writers": 1}
        if "UNKNOWN_TENANTS" not in self._environ and "DATABASE_URL" not in self._environ:
            # What `caudal up` runs with.
            overrides["unknown_tenants"] = "register"
        for name in KEPT:
            if name.upper() not in self._environ and (kept := self._kept().get(name)):
                overrides[name] = kept
        return load(IngestSettings, self._environ, **overrides)


@asynccontextmanager
async def connected(installation: Installation) -> AsyncIterator[asyncpg.Connection[Any]]:
    """An administrator's connection. Raises NoInstallation when nobody answers."""
    url = db.check(installation.database_url)
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            url, timeout=10, server_settings={"application_name": "caudal tool", **db.SESSION}
        )
    except Exception as error:
        if (sentence := db.explain(error, url)) is None:
            raise
        raise NoInstallation(sentence) from None
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def own_pipeline(installation: Installation) -> AsyncIterator[tuple[asyncpg.Pool[Any], Pipeline]]:
    """A pipeline in this process, with a pool that sees every tenant; both end with the block."""
    async with connected(installation):
        pass
    life = Lifecycle()
    worker = f"tool:{socket.gethostname()}:{os.getpid()}"
    try:
        pool = await db.open_pool(
            installation.database_url, minimum=1, maximum=3, role=ROLE, name="caudal tool"
        )
        life.on_stop("tool pool", pool.close)
        pipeline = await build_pipeline(
            life, installation.database_url, installation.ingest_settings, Metrics(), worker=worker
        )
        yield pool, pipeline
        await pipeline.drained()
    finally:
        await life.stop()


_GATEWAYS = """
with owner as (
  insert into caudal.tenant(name) values ($1) on conflict (name) do update set name = excluded.name
  returning id
)
insert into caudal.gateway(tenant_id, code, mac, name, capacity)
select owner.id, upper(m.name), m.mac, m.name, 32 from owner, unnest($2::text[], $3::text[]) as m(name, mac)
on conflict do nothing
"""


async def register_gateways(installation: Installation, tenant: str, machines: Sequence[Machine]) -> None:
    """Make the machines' boxes known: a MAC that nobody registered belongs to nobody. Raises InvalidInput."""
    names, macs = [machine.name for machine in machines], [machine.mac(tenant) for machine in machines]
    async with connected(installation) as connection, connection.transaction():
        if installation.ingest_settings.unknown_tenants == "refuse" and not await connection.fetchval(
            "select true from caudal.tenant where name = $1", tenant
        ):
            raise InvalidInput(f"There is no tenant {tenant}. Make it with `caudal tenant create {tenant}`.")
        await connection.execute(_GATEWAYS, tenant, names, macs)
        if others := await connection.fetchval(
            "select count(*) from caudal.gateway g join caudal.tenant t on t.id = g.tenant_id"
            " where g.mac = any($1) and t.name <> $2",
            macs,
            tenant,
        ):
            # Undone by the exception, the tenant with them.
            raise InvalidInput(f"{others} of the simulated gateways are another tenant's. Name another.")
