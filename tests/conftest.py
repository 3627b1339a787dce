"""What every test shares: one PostgreSQL for the run, a database of its own for each test, named skips.

`CAUDAL_TEST_REQUIRE=all` turns every skip into a failure; that is how CI runs.
`CAUDAL_TEST_DATABASE_URL` names a server to use in place of the embedded one (its user makes databases).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pytest

from caudal.core import db
from caudal.core.migrate import migrate
from caudal.core.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_ALL = os.environ.get("CAUDAL_TEST_REQUIRE") == "all"


def missing(what: str) -> NoReturn:
    """Skip the test by name because `what` is not on this machine; a failure where nothing may be missing."""
    if REQUIRE_ALL:
        pytest.fail(f"CAUDAL_TEST_REQUIRE=all, and this machine lacks {what}", pytrace=False)
    pytest.skip(f"this machine lacks {what}")


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


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """An administrator's URL of a PostgreSQL server, with the template database migrated."""
    named = os.environ.get("CAUDAL_TEST_DATABASE_URL")
    with tempfile.TemporaryDirectory(prefix="caudal-test-", ignore_cleanup_errors=True) as folder:
        # Tests make hundreds of databases; what they lose in a power cut nobody misses. Crash tests, which
        # do care, start servers of their own.
        unsafe = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        Path(folder).chmod(0o755)
        embedded = EmbeddedPostgres(Path(folder) / "pg", options=unsafe)

        async def prepare() -> str:
            if named is None:
                await embedded.start()
            url = named or embedded.url
            await administer(
                url, "drop database if exists caudal_template", "create database caudal_template"
            )
            await migrate(at_database(url, "caudal_template"))
            return url

        url = asyncio.run(prepare())
        yield url
        asyncio.run(embedded.stop())


_numbers = itertools.count()


@pytest.fixture
async def database_url(server_url: str) -> AsyncIterator[str]:
    """An administrator's URL of a fresh, migrated database for this test alone."""
    name = f"caudal_test_{os.getpid()}_{next(_numbers)}"
    await administer(server_url, f"create database {name} template caudal_template")
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
