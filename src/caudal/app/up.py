"""`caudal up`: the platform on one machine, as a supervisor of the same processes that production runs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from caudal.app.demo import prepare, register_fleet, reserve
from caudal.app.doors import broker_address
from caudal.app.part import Part
from caudal.app.tools import KEPT
from caudal.core import db, logs
from caudal.core.errors import CaudalError, InvalidInput, Unavailable
from caudal.core.lifecycle import Lifecycle
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres, free_port
from caudal.core.supervisor import Child, StartError, child_environ, keep_alive
from caudal.registry.tenants import OneTimeSecret, bootstrap, create_demo_people

log = logs.get("up")


class AlreadyUp(CaudalError):
    """Another `caudal up` has this directory."""

    code = "already_up"


class Secrets(msgspec.Struct):
    """What this installation keeps to itself, in a file that only its owner reads."""

    mqtt_password: str
    master_key: str


TELEMETRY = (Part("ingest", ("ingest",), {"MQTT_PORT": 1883, "METRICS_PORT": 9100}),)
API = (Part("api", ("api",), {"API_PORT": 8080}),)
# What may start at once, once the API answers.
REST = (
    Part(
        "workers",
        ("workers",),
        {
            "ROUTER_METRICS_PORT": 8082,
            "WHATSAPP_METRICS_PORT": 8083,
            "INSTAGRAM_METRICS_PORT": 8084,
            "APPRISE_METRICS_PORT": 8086,
            "UPKEEP_METRICS_PORT": 8087,
            "REALTIME_PORT": 8085,
        },
    ),
)


def secrets_of(directory: Path) -> Secrets | None:
    """What the installation on `directory` keeps; None when it has never been up. Raises InvalidInput."""
    path = directory / "secrets.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        # Made anew it would open nothing that the old one sealed: providers' tokens, signing keys.
        raise InvalidInput(
            f"{path} cannot be read ({error}). Restore it from a backup: it opens what the"
            " database has sealed."
        ) from None


class Platform:
    """Everything `caudal up` runs. `endpoints` is filled once all of it is ready."""

    def __init__(
        self, directory: Path, *, demo: bool, host: str, environ: Mapping[str, str], ingest: int = 1
    ) -> None:
        self.directory = directory.absolute()
        self._ingest = ingest
        self._demo = demo
        self._host = host
        self._environ = dict(environ)
        self._lock: Any = None
        self.endpoints: dict[str, str] = {}
        self.owner: OneTimeSecret | None = None
        """The first owner and their password; after the first start, None."""

    def lock(self) -> None:
        """Take the directory for this process. Raises AlreadyUp when another one has it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / "lock").open("a+")
        except OSError as error:
            raise InvalidInput(
                f"Nothing can be kept in {self.directory} ({error.strerror}). Give another with --data."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            raise AlreadyUp(
                f"Caudal is up on {self.directory} already (process {owner}). "
                "Stop it, or give another directory with --data."
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    async def start(self, life: Lifecycle, say: Callable[[str], None] = lambda _: None) -> None:
        """Bring everything up; `say` hears what is being done."""
        # Before anything starts: where nothing can listen, nothing need start.
        free_port(0, self._host)
        await self._ask_broker()
        self.lock()
        ready = self.directory / "endpoints.json"
        ready.unlink(missing_ok=True)
        database_url = self._environ.get("DATABASE_URL") or await self._start_postgres(life, say)
        say("Migrating the database")
        await migrate(database_url)
        kept = self._secrets()
        environ = child_environ(
            self._environ,
            DATABASE_URL=database_url,
            UNKNOWN_TENANTS=self._environ.get("UNKNOWN_TENANTS", "register"),
            MQTT_HOST=self._host,
            METRICS_HOST=self._host,
            API_HOST=self._host,
            STATE_DIR=str(self.directory / "state"),
            FILES_URL=self._environ.get("FILES_URL") or str(self.directory / "files"),
            MQTT_ADMIN_PASSWORD=self._environ.get("MQTT_ADMIN_PASSWORD", kept.mqtt_password),
            CAUDAL_MASTER_KEY=self._environ.get("CAUDAL_MASTER_KEY", kept.master_key),
        )
        (self.directory / "logs").mkdir(exist_ok=True)
        found: dict[str, str] = {"database_url": database_url}
        self.owner = await self._first_people(database_url)
        if self._demo:
            reserve(environ, self._host)
        if self._ingest > 1:
            # Behind a broker they split one subscription; without a group each would be sent everything.
            environ.setdefault("MQTT_GROUP", "caudal")
        say("Starting ingest and the API")
        found.update(await self._start_parts(life, [*TELEMETRY, *API], environ))
        found["http_url"] = found.pop("api_url")
        environ["PUBLIC_URL"] = environ.get("PUBLIC_URL") or found["http_url"]
        rest: Sequence[Part] = REST
        if self._demo:
            say("Preparing the demonstration")
            sandbox, rest = await prepare(REST, environ, found["http_url"])
            found.update(await self._start_part(life, sandbox, environ))
            publisher = found["mqtt_url"]
            if "MQTT_URL" not in self._environ:
                publisher = _with_credentials(publisher, "admin", environ["MQTT_ADMIN_PASSWORD"])
            rest = (*rest, Part("fleet", ("simulate", "--demo"), environ={"FLEET_MQTT_URL": publisher}))
        say(f"Starting {', '.join(part.name for part in rest)}")
        more = await self._start_parts(life, (*rest, *self._more_ingest(found["mqtt_url"])), environ)
        # The further processes of ingest are at the address of the first, which `found` has already.
        found = {**found, **{name: url for name, url in more.items() if name not in found}}
        if "mqtt_url" in found and "MQTT_URL" not in self._environ:
            found["mqtt_url"] = _with_credentials(found["mqtt_url"], "admin", environ["MQTT_ADMIN_PASSWORD"])
        self.endpoints = found
        # Tools have no other way to learn which topics this installation was told to use.
        told = {name: text for name in KEPT if (text := self._environ.get(name.upper()))}
        _write_private(ready, msgspec.json.format(msgspec.json.encode({**found, **told}), indent=2) + b"\n")
        life.on_stop("endpoints.json", _remover(ready))

    async def _ask_broker(self) -> None:
        """Raises Unavailable when nobody answers at MQTT_URL: ingest would wait, and say so in its log."""
        if not (url := self._environ.get("MQTT_URL")):
            return
        host, port = broker_address(url)
        try:
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                f"No broker answers at {host}:{port} ({error or 'no answer in time'}). Start it, correct"
                " MQTT_URL, or unset it: devices then connect to Caudal itself."
            ) from None
        writer.close()

    def _more_ingest(self, url: str) -> list[Part]:
        """The processes that share the port, or the subscription, of the one that is at `url`."""
        own = {} if "MQTT_URL" in self._environ else {"MQTT_PORT": str(urlsplit(url).port)}
        return [
            Part(
                f"ingest_{number}", ("ingest",),
                environ={**own, "METRICS_PORT": str(free_port(0, self._host))},
            )
            for number in range(2, self._ingest + 1)
        ]  # fmt: skip

    async def _first_people(self, database_url: str) -> OneTimeSecret | None:
        pool = await db.open_pool(database_url, minimum=1, maximum=2, name="caudal up")
        try:
            made = await bootstrap(pool)
            if self._demo:
                await create_demo_people(pool)
                await register_fleet(pool)
            return made
        finally:
            await pool.close()

    async def _start_postgres(self, life: Lifecycle, say: Callable[[str], None]) -> str:
        say("Starting PostgreSQL")
        server = EmbeddedPostgres(self.directory / "postgres", port=5432)
        life.on_stop("postgres", server.stop)
        await server.start()
        life.spawn("keeper of postgres", server.keep())
        return server.url

    async def _start_parts(
        self, life: Lifecycle, group: Sequence[Part], environ: Mapping[str, str]
    ) -> dict[str, str]:
        """Start several at once; returns all that they announced. When one fails, so does this."""
        found: dict[str, str] = {}
        for endpoints in await asyncio.gather(*(self._start_part(life, part, environ) for part in group)):
            found.update(endpoints)
        return found

    async def _start_part(self, life: Lifecycle, part: Part, environ: Mapping[str, str]) -> dict[str, str]:
        def port(given: str | None, usual: int) -> str:
            if given and given != "0":
                return given
            # 0 is any, and which is said here: a part that dies comes back where it was announced to be.
            return str(free_port(0 if given else usual, self._host))

        def ports(usual: bool) -> dict[str, str]:
            return {
                name: port(self._environ.get(name), number if usual else 0)
                for name, number in part.ports.items()
            }

        def child(usual: bool) -> Child:
            return Child(
                part.name, ("caudal", *part.arguments), {**environ, **part.environ, **ports(usual)},
                self.directory / "logs" / f"{part.name}.log",
            )  # fmt: skip

        made = child(usual=True)
        try:
            endpoints = await made.start()
        except StartError:
            # Somebody may have taken a port between our look and its use: once more, on others.
            made = child(usual=False)
            endpoints = await made.start()
        life.on_stop(part.name, made.stop)
        life.spawn(f"keeper of {part.name}", keep_alive(made))
        if part.name.startswith("ingest_"):
            endpoints[f"{part.name}_metrics_url"] = endpoints.pop("metrics_url")
        return endpoints

    def _secrets(self) -> Secrets:
        path = self.directory / "secrets.json"
        if (kept := secrets_of(self.directory)) is not None:
            return kept
        made = Secrets(mqtt_password=secrets.token_urlsafe(18), master_key=secrets.token_urlsafe(32))
        _write_private(path, msgspec.json.encode(made))
        return made


def _with_credentials(url: str, user: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user)}:{quote(password)}@{rest}"


def _write_private(path: Path, content: bytes) -> None:
    """Write whole or not at all, readable by its owner alone."""
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    fresh.replace(path)


def _remover(path: Path) -> Callable[[], Any]:
    async def remove() -> None:
        path.unlink(missing_ok=True)

    return remove
