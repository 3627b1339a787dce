"""Two tenants, and the API's own pool: a role that owns nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from caudal.core import db


@pytest.fixture
async def tenants(pool: asyncpg.Pool[Any]) -> tuple[str, str]:
    """The names of two tenants."""
    await pool.execute("insert into caudal.tenant(name) values ('acme'), ('rival')")
    return "acme", "rival"


@pytest.fixture
async def app_pool(database_url: str, tenants: tuple[str, str]) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A pool as the API has it."""
    opened = await db.open_pool(database_url, minimum=1, maximum=8, role="caudal_app")
    yield opened
    await opened.close()


@pytest.fixture
async def ingest_pool(database_url: str, tenants: tuple[str, str]) -> AsyncIterator[asyncpg.Pool[Any]]:
    """A pool as ingest has it."""
    opened = await db.open_pool(database_url, minimum=1, maximum=4, role="caudal_ingest")
    yield opened
    await opened.close()
