"""The console in a real browser (Debian's Chromium), on a real API and a tenant that has seen life.

One database and one API serve the whole folder: tests read, or leave what they change as it was, or work on
things of their own. A test fails when its page logged an error or broke the content security policy.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest

from caudal.app import api, console, devices, files, messaging
from caudal.app.ingest import IngestParts, build
from caudal.app.server import serve
from caudal.core import db
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.settings import MessagingSettings
from caudal.registry.access import AccessSettings
from caudal.registry.mosquitto import MosquittoSettings
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.pki.settings import PkiSettings
from caudal.registry.settings import PeopleSettings
from caudal.registry.tenants import create_person, create_tenant
from caudal.sandbox import demo
from caudal.sandbox.server import Sandbox
from caudal.telemetry.settings import IngestSettings
from caudal.web.settings import WebSettings
from tests.conftest import TEMPLATE, WORKER, missing

from . import seed

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PEOPLE = {"ana": Role.OWNER, "tito": Role.TECHNICIAN, "vera": Role.VIEWER, "memo": Role.MEMBER,
          "rita": Role.VIEWER}  # fmt: skip
PASSWORD = "secret1"
SETTLED = (Path(__file__).parents[2] / "tools" / "settled.js").read_text()


class Site:
    """A running platform: its address, and a loop of its own to run coroutines of a test in."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="site", daemon=True)
        self._thread.start()
        self.life = Lifecycle()
        self.url = ""
        self.database = ""
        self.sandbox_url = ""
        self.made: Any = None
        self.folder = ""
        self.admin: Any = None
        self.ingest: IngestParts = None  # type: ignore[assignment]
        self.phones: Any = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine, run where the servers run."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(60)

    async def start(self, url: str) -> None:
        self.database = url
        self.admin = await db.open_pool(url, minimum=1, maximum=3)
        people = PeopleSettings(secret_key="x" * 40, rate_limit_address=0, principal_seconds=0)
        made = await api.parts(self.life, url, people, WebSettings(), Metrics(), environ={})
        self.made = made
        await create_tenant(self.admin, "default")
        await create_tenant(self.admin, "acme")
        await create_tenant(self.admin, "empty")
        passwords = Passwords(threads=1)
        for name, role in PEOPLE.items():
            await create_person(
                self.admin, passwords, tenant="acme", role=role, password=PASSWORD, username=name,
                email=f"{name}@acme.example",
            )  # fmt: skip
        for name, tenant in (("root_1", "default"), ("nova", "empty")):
            await create_person(
                self.admin, passwords, tenant=tenant, role=Role.OWNER, password=PASSWORD, username=name
            )
        passwords.close()
        await seed.seed(self.admin)
        settings = IngestSettings()
        self.ingest = await build(self.life, url, settings, made.metrics, worker="http")
        await devices.compose(
            self.life, made, self.ingest, settings, AccessSettings(), PkiSettings(), MosquittoSettings()
        )
        made.services.update(
            await messaging.api_services(
                self.life, made.pool, url, LogSettings(), MessagingSettings(), made.metrics
            )
        )
        await files.add(self.life, made, FileSettings(files_url=self.folder))
        await files.add_sockets(self.life, made, RealtimeSettings())
        sandbox = Sandbox("127.0.0.1", 0)
        await sandbox.start(self.life)
        demo.populate(sandbox.world)
        self.phones, self.sandbox_url = sandbox.world.phones, sandbox.url
        await console.bring(
            self.life, msgspec.structs.replace(made, web=WebSettings(sandbox_url=sandbox.url))
        )
        server = await serve(self.life, api.application(made), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.port}"

    async def stop(self) -> None:
        await self.life.stop()
        if self.admin is not None:
            await self.admin.close()

    def close(self) -> None:
        self.run(self.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@pytest.fixture(scope="session")
def site(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The platform, for all tests of this folder."""
    name = f"caudal_browser_{WORKER}"
    base = server_url.rsplit("/", 1)[0]
    made = Site()
    made.run(
        _administer(f"{base}/postgres", f"drop database if exists {name} with (force)",
                    f"create database {name} template {TEMPLATE}")
    )  # fmt: skip
    made.folder = str(tmp_path_factory.mktemp("files"))
    made.run(made.start(f"{base}/{name}"))
    yield made
    made.close()


async def _administer(url: str, *statements: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="module")
def browser(require: Callable[[str], str], site: Site) -> Iterator[Any]:
    """Chromium, without a screen.

    For a module, not for the session: while it is there, its event loop counts as running in this thread, and
    no coroutine of another test could. For that reason, too, it begins after the servers.
    """
    from playwright.sync_api import sync_playwright

    program = require("chromium")
    try:
        playwright = sync_playwright().start()
    except Exception as error:
        missing(f"what Playwright's driver runs with (on Debian: libatomic1): {error}")
    try:
        launched = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield launched
        launched.close()
    finally:
        playwright.stop()


class Window:
    """A browser window of one person, on the site."""

    def __init__(self, browser: Any, site: Site, **options: Any) -> None:
        self.site = site
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self.context = browser.new_context(base_url=site.url, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # Chromium reports answers of 4xx here; tests look at those themselves.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def sign_in(self, name: str) -> Window:
        """By the form, once for each person; afterwards by the cookie that it gave."""
        known = _cookies.get((self.site.url, name))
        if known:
            self.context.add_cookies(known)
            return self
        self.page.goto("/console/sign-in")
        self.page.fill("[name=login]", name)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("button.primary")
        self.page.wait_for_url(lambda address: "sign-in" not in address)
        _cookies[(self.site.url, name)] = self.context.cookies()
        return self

    def go(self, address: str) -> Any:
        """The page at an address, loaded."""
        self.page.goto(address)
        return self.page

    def settle(self) -> None:
        """Wait until every chart is drawn, or says why not, and nothing more is being fetched."""
        self.page.wait_for_function(SETTLED)

    def close(self) -> None:
        self.context.close()


_cookies: dict[tuple[str, str], Any] = {}


@pytest.fixture
def window(browser: Any, site: Site) -> Iterator[Callable[..., Window]]:
    """Opens windows: `window("ana", color_scheme="dark")`; without a name, a stranger's."""
    opened: list[Window] = []

    def open_window(name: str | None = None, **options: Any) -> Window:
        made = Window(browser, site, **options)
        opened.append(made)
        return made.sign_in(name) if name else made

    yield open_window
    errors = [error for made in opened for error in made.errors]
    for made in opened:
        made.close()
    assert errors == []


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: CAUDAL_TEST_SHOTS, or a temporary folder that is shown at the end."""
    named = os.environ.get("CAUDAL_TEST_SHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
