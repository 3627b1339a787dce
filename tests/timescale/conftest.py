"""Only where `CAUDAL_TEST_TIMESCALE_URL` names a server with TimescaleDB loaded; an administrator's URL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from caudal.core.migrate import migrate
from tests.conftest import administer, at_database

URL = os.environ.get("CAUDAL_TEST_TIMESCALE_URL")
# Without a server these tests do not exist (tests/conftest.py says so in the summary): TimescaleDB is in no
# package registry that a test set-up could take it from.
collect_ignore_glob = [] if URL else ["test_*.py"]


@pytest.fixture
async def database_url() -> AsyncIterator[str]:
    assert URL is not None
    name = f"caudal_timescale_{os.getpid()}"
    await administer(URL, f"drop database if exists {name} with (force)", f"create database {name}")
    await migrate(at_database(URL, name))
    yield at_database(URL, name)
    await administer(URL, f"drop database {name} with (force)")
