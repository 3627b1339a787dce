"""What an upload costs the API's process in memory does not depend on its size."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from caudal.core.supervisor import Child, child_environ
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role
from caudal.registry.tenants import create_person, create_tenant

MIB = 1024 * 1024
SIZE = 320
# Measured: 15, for 2 GiB.
MOST = 40.0


def peak(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@pytest.mark.slow
async def test_an_upload_is_not_gathered_in_memory(
    database_url: str, pool: asyncpg.Pool[Any], tmp_path: Path
) -> None:
    await create_tenant(pool, "default")
    await create_person(
        pool, Passwords(threads=1), tenant="default", role=Role.MEMBER, username="ana", password="pass_ana"
    )
    environ = child_environ(
        {}, PATH=os.environ["PATH"], DATABASE_URL=database_url, CAUDAL_MASTER_KEY="x" * 40, API_PORT="0",
        FILES_URL=str(tmp_path / "files"), STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    child = Child("api", ("caudal", "api"), environ, tmp_path / "api.log")
    await child.start(timeout=60)
    try:
        async with httpx.AsyncClient(base_url=child.endpoints["api_url"], timeout=60) as client:
            signed = await client.post("/auth/token", json={"username": "ana", "password": "pass_ana"})
            headers = {
                "Authorization": f"Bearer {signed.json()['access_token']}",
                "Content-Type": "multipart/form-data; boundary=b",
            }
            assert child.pid is not None
            before = peak(child.pid)
            answer = await client.post("/v1/files", content=body(), headers=headers)
            assert answer.status_code == 201, answer.text
            assert answer.json()["size_bytes"] == SIZE * MIB
            assert peak(child.pid) - before < MOST
    finally:
        await child.stop()
        # What a test leaves is kept for a while; this need not be.
        shutil.rmtree(tmp_path / "files", ignore_errors=True)


async def body() -> AsyncIterator[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="'
    yield part + b'conversation_id"\r\n\r\nc\r\n' + part + b'file"; filename="big"\r\n\r\n'
    piece = os.urandom(MIB)
    for _ in range(SIZE):
        yield piece
    yield b"\r\n--b--\r\n"
