"""What every test shares: a PostgreSQL for each test process, a database for each test, named skips.

`CAUDAL_TEST_REQUIRE=all` turns every skip into a failure; that is how CI runs.
`CAUDAL_TEST_DATABASE_URL` names a server to use in place of the embedded one (its user makes databases).
Tests run in several processes (`make test` says how many): a file's stay together, and so do those that share
a server which is dear to start. Nothing may rest on a fixed port, name or path that another process may use.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID, uuid4

import asyncpg
import httpx
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from caudal.app import api
from caudal.app.server import serve
from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres
from caudal.registry import passwords
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.settings import PeopleSettings
from caudal.registry.tenants import create_person, create_tenant
from caudal.web.settings import WebSettings
from tests.alone import locked, turn
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / ".cache" / "tests"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
TEMPLATE = f"caudal_template_{WORKER}"
# Folders that go to one process whole: their tests share a browser, a cluster, the ports of `caudal up`.
TOGETHER = ("browser", "crash", "integration/up", "integration/connectors", "validate")
# What takes longest goes first: at the end, when the other processes have nothing left, nobody waits for it.
LONGEST = ("integration/up", "browser", "fuzz", "crash", "kafka", "contract", "integration")
# What production pays for a hash; tests pay less (`pytest_configure`).
PASSWORD_COST = passwords.COST
REQUIRE_ALL = os.environ.get("CAUDAL_TEST_REQUIRE") == "all"


# A property is about what comes out, not about how busy this machine is.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


def missing(what: str) -> NoReturn:
    """Skip the test by name because `what` is not on this machine; a failure where nothing may be missing."""
    if REQUIRE_ALL:
        pytest.fail(f"CAUDAL_TEST_REQUIRE=all, and this machine lacks {what}", pytrace=False)
    pytest.skip(f"this machine lacks {what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out altogether: tests for servers that no set-up of ours can bring."""
    for variable, what in (
        ("CAUDAL_TEST_TIMESCALE_URL", "tests/timescale: names no server with TimescaleDB"),
        ("CAUDAL_TEST_PAHO_SUITE", "tests/mqtt/test_interop.py: names no checkout of the paho suite"),
    ):
        if not os.environ.get(variable):
            terminalreporter.write_line(f"left out: {what} ({variable})")


def pytest_configure() -> None:
    """What holds for the whole process."""
    # A shell's background job ignores Ctrl-C, and so would every program that tests stop with it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hundreds of people are made, and one is enough to see that passwords are dear.
    passwords.COST = passwords.Cost(1, 64, 1)


def group_of(nodeid: str) -> str:
    """The name of the tests that this one stays together with, in one process."""
    place, _, name = nodeid.removeprefix("tests/").partition("::")
    if place.startswith("kafka/") or re.search(r"\[.*kafka.*\]", name):
        return "kafka"
    return next((folder for folder in TOGETHER if place.startswith(f"{folder}/")), place)


class Groups(LoadScopeScheduling):
    """Hands out whole groups, in the order in which they stand."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Ours instead of `loadgroup`, which writes its groups to where pytest 9 no longer looks."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups next to each other; the longest first."""
    order = {name: at for at, name in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> tuple[int, str]:
        name = group_of(item.nodeid)
        return next((at for word, at in order.items() if name.startswith(word)), len(order)), name

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that measures time has the machine for itself, as far as that lies with us."""
    with turn(LOCKS, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be missing, a skip of whatever kind is a failure."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"CAUDAL_TEST_REQUIRE=all, and this test was skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """Gives the path of a program that the test needs, or skips the test by name."""

    def find(program: str) -> str:
        return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or missing(program)

    return find


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of contracts, vectors and recorded data that several projects share."""
    named = os.environ.get("CAUDAL_SHARED")
    candidates = [Path(named)] if named else [ROOT.parent / "shared"]
    if not named:
        # A git worktree lies elsewhere; its repository's neighbour is the same folder.
        git = ["git", "-C", str(ROOT), "rev-parse", "--path-format=absolute", "--git-common-dir"]
        found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            candidates.append(Path(found).parent.parent / "shared")
    for candidate in candidates:
        if (candidate / "contracts").is_dir():
            return candidate
    missing("the shared folder (CAUDAL_SHARED)")


def at_database(url: str, database: str) -> str:
    """The same server, another database."""
    return f"{url.rsplit('/', 1)[0]}/{database}"


async def administer(url: str, *statements: str) -> None:
    """Run statements outside any transaction, as an administrator."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(at_database(url, "postgres"))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def in_memory() -> str | None:
    """A file system in memory with room for a server's files: a database is made in a third of the time."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 3 << 30
    return str(shared) if roomy else None


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """An administrator's URL of a PostgreSQL server, with the template database migrated."""
    named = os.environ.get("CAUDAL_TEST_DATABASE_URL")
    with tempfile.TemporaryDirectory(
        prefix="caudal-test-", dir=in_memory(), ignore_cleanup_errors=True
    ) as folder:
        # Tests make hundreds of databases; what they lose in a power cut nobody misses. Crash tests, which
        # do care, start servers of their own, on a disk.
        unsafe = {
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "256MB",
        }  # fmt: skip
        Path(folder).chmod(0o755)
        embedded = EmbeddedPostgres(Path(folder) / "pg", port=free_port(), options=unsafe)

        async def prepare() -> str:
            if named is None:
                await embedded.start()
            url = named or embedded.url
            await administer(url, f"drop database if exists {TEMPLATE}", f"create database {TEMPLATE}")
            await migrate(at_database(url, TEMPLATE))
            # TimescaleDB's scheduler sits in every database that it may enter, and nobody can copy that one.
            await administer(
                url,
                f"alter database {TEMPLATE} allow_connections false",
                f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{TEMPLATE}'",
            )
            return url

        # One process at a time: they may share a server's roles, and the system's user that it runs as.
        with locked(LOCKS / "prepare.lock"):
            url = asyncio.run(prepare())
        yield url
        asyncio.run(embedded.stop())


_numbers = itertools.count()


@pytest.fixture
async def database_url(server_url: str) -> AsyncIterator[str]:
    """An administrator's URL of a fresh, migrated database for this test alone."""
    name = f"caudal_test_{os.getpid()}_{next(_numbers)}"
    # Copied as files: without fsync that is three times as fast as through the log.
    await administer(server_url, f"create database {name} template {TEMPLATE} strategy file_copy")
    yield at_database(server_url, name)
    await administer(server_url, f"drop database {name} with (force)")


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """An administrator's URL of a fresh database without any migration."""
    name = f"caudal_empty_{os.getpid()}_{next(_numbers)}"
    await administer(server_url, f"create database {name} template template0")
    yield at_database(server_url, name)
    await administer(server_url, f"drop database {name} with (force)")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """An administrator's pool on this test's database."""
    opened = await db.open_pool(database_url, minimum=1, maximum=8)
    yield opened
    await opened.close()


@pytest.fixture
async def hypertable(pool: asyncpg.Pool[Any]) -> bool:
    """Whether samples are in a hypertable of TimescaleDB, or in partitions of ours."""
    return bool(await pool.fetchval("select to_regclass('caudal.sample_default') is null"))


class Api:
    """The API on a real port and a real database, with tenants and people to call it."""

    def __init__(self, admin: asyncpg.Pool[Any], made: api.ApiParts) -> None:
        self.admin = admin
        self.parts = made
        self.passwords = Passwords(threads=1)
        self.life = Lifecycle()
        self.app: Any = None
        self.url = ""
        self.client: httpx.AsyncClient = None  # type: ignore[assignment]

    async def start(self, **services: object) -> Api:
        """Serve, with these services beside those every API has."""
        # A test's own take the place of what every API has.
        dict.update(self.parts.services, services)
        self.app = api.application(self.parts)
        server = await serve(self.life, self.app, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.port}"
        # Reading the authorities' certificates takes longer than most tests; there is no TLS here.
        self.client = httpx.AsyncClient(base_url=self.url, timeout=20, verify=False)
        return self

    async def tenant(self, name: str) -> int:
        """A tenant of that name, made when there is none; its id."""
        found = await self.admin.fetchval("select id from caudal.tenant where name = $1", name)
        return found or await create_tenant(self.admin, name)

    async def person(self, tenant: str, role: Role, **names: str) -> tuple[UUID, dict[str, str]]:
        """A new person in a tenant: their id, and headers that a request of theirs carries."""
        await self.tenant(tenant)
        username = names.pop("username", f"p_{uuid4().hex[:12]}")
        made = await create_person(self.admin, self.passwords, tenant=tenant, role=role, username=username,
                                   password=names.pop("password", "secret"), **names)  # fmt: skip
        return made, {"Authorization": f"Bearer {await self.parts.keys.issue(made, tenant)}"}

    async def headers(self, tenant: str, role: Role = Role.OWNER) -> dict[str, str]:
        """Headers of a new person with `role` in `tenant`."""
        return (await self.person(tenant, role))[1]

    async def stop(self) -> None:
        if self.client is not None:
            await self.client.aclose()
        await self.life.stop()
        self.passwords.close()


@pytest.fixture
async def unstarted_api(database_url: str, pool: asyncpg.Pool[Any], tmp_path: Path) -> AsyncIterator[Api]:
    """The API before its start, to be given services: `await unstarted_api.start(name=service)`."""
    people = PeopleSettings(secret_key="x" * 40, rate_limit_address=0, principal_seconds=0)
    life = Lifecycle()
    await create_tenant(pool, "default")
    environ = {"FILES_URL": str(tmp_path / "files")}
    made = Api(pool, await api.parts(life, database_url, people, WebSettings(), Metrics(), environ=environ))
    try:
        yield made
    finally:
        await made.stop()
        await life.stop()


@pytest.fixture
async def running_api(unstarted_api: Api) -> Api:
    """The API, serving what needs no services of other domains."""
    return await unstarted_api.start()


@pytest.fixture(scope="session")
def kafka_broker(require: Callable[[str], str]) -> Iterator[Any]:
    """A real Kafka broker for the run; its jars are fetched from Maven Central once."""
    from tests.kafka.broker import Broker, fetch

    java, maven = require("java"), require("mvn")
    with locked(LOCKS / "kafka.lock"):
        fetch(maven)
    broker = Broker(java)
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()
