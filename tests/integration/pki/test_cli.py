"""`caudal pki` as an operator runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from cryptography import x509

from caudal.cli.pki import command
from caudal.core.errors import CaudalError
from caudal.registry.pki import registrations

from .conftest import MAC, Gateway


async def test_the_operators_day(unstarted_api: Any, database_url: str, tmp_path: Path) -> None:
    admin = unstarted_api.admin
    await unstarted_api.tenant("acme")
    environ = {"DATABASE_URL": database_url, "CAUDAL_MASTER_KEY": "x" * 40, "COLUMNS": "200"}

    async def run(*arguments: str, status: int = 0) -> str:
        """The command as `main` runs it, in a thread: it brings an event loop of its own."""
        came = await asyncio.to_thread(CliRunner(env=environ).invoke, command, arguments)
        if isinstance(came.exception, CaudalError):
            assert status == 2, came.exception
            return came.exception.sentence
        assert came.exit_code == status, came.output
        return came.output

    def out(name: str) -> tuple[str, str]:
        return "--out", str(tmp_path / name)

    assert "no certificate authority yet" in await run("authority", status=2)
    authority = x509.load_pem_x509_certificate((await run("init")).encode())
    assert "already" in await run("init", status=2)
    assert x509.load_pem_x509_crl((await run("crl")).encode()).is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    fingerprint = (await run("bootstrap", "new", "batch", *out("boot"))).split()[-1]
    assert (tmp_path / "boot" / "bootstrap.key.pem").stat().st_mode & 0o777 == 0o600
    await run("server", "localhost", "127.0.0.1", *out("tls"))
    gateway = Gateway(MAC, tmp_path)
    given = registrations.RegistrationIn(**gateway.registration(fingerprint))
    _, number = await registrations.register(admin, given, "192.0.2.1")
    assert MAC in await run("pending")
    # Nobody's tenant sees it: the bootstrap certificate is the platform's.
    assert await admin.fetchval("select tenant_id from caudal.registration") is None
    assert "no tenant" in await run("approve", str(number), "--tenant", "nobody", "--code", "g1", status=2)
    assert "G1 of acme" in await run("approve", str(number), "--tenant", "acme", "--code", "g1")
    assert MAC in await run("list")
    assert "key_compromise" in await run("revoke", "1", "--reason", "key_compromise")
    await run("generate", MAC, *out("burn"))
    burnt = x509.load_pem_x509_certificate((tmp_path / "burn" / "certificate.pem").read_bytes())
    burnt.verify_directly_issued_by(authority)
    assert len(x509.load_pem_x509_crl((await run("crl")).encode())) == 1
    assert "0 gateways" in await run("renew")
    assert len((await run("mqtt-user", "panel", "dashboard", "--tenant", "acme")).strip()) == 43
