"""`caudal pki --data`: the authority of a platform that is up on a directory, with that directory's key."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
from cryptography import x509

from caudal.app.up import secrets_of
from caudal.core.seal import Sealer
from caudal.registry.pki import authority as ca

from .conftest import ENVIRON, Up


async def pki(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    """`caudal pki` as a process: status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", "pki", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=cwd, env={**ENVIRON, "COLUMNS": "200", **environ},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_authority_of_the_platform_on_a_directory(up: Up, tmp_path: Path) -> None:
    data = ("--data", str(up.directory))
    # Nothing is up there yet: said, and nothing made.
    status, _, err = await pki(*data, "init", cwd=tmp_path)
    assert status == 2
    assert "nothing is up on" in err
    assert "Traceback" not in err
    assert not up.directory.exists()

    endpoints = await up.start()
    # The directory decides, whatever else the environment names; its own key seals the authority's.
    elsewhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "CAUDAL_MASTER_KEY": "y" * 40}
    status, out, err = await pki(*data, "init", cwd=tmp_path, **elsewhere)
    assert status == 0, err
    authority = x509.load_pem_x509_certificate(out.encode())
    status, out, err = await pki(*data, "server", "localhost", "--out", "tls", cwd=tmp_path, **elsewhere)
    assert status == 0, err
    made = x509.load_pem_x509_certificate((tmp_path / "tls" / "server.pem").read_bytes())
    made.verify_directly_issued_by(authority)
    async with httpx.AsyncClient(base_url=endpoints["http_url"], timeout=20) as client:
        answer = await client.get("/api/pki/authority")
        assert x509.load_pem_x509_certificate(answer.content) == authority
    # What the API opens it with.
    kept = secrets_of(up.directory)
    assert kept is not None
    connection = await asyncpg.connect(endpoints["database_url"])
    try:
        assert (await ca.load(connection, Sealer(kept.master_key))).certificate == authority
    finally:
        await connection.close()
    # Without --data, ./data: the same platform from the directory above.
    status, out, err = await pki("authority", cwd=up.directory.parent)
    assert (status, err) == (0, "")
    assert x509.load_pem_x509_certificate(out.encode()) == authority
