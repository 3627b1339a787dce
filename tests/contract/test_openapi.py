"""The API does what its own description says: schemathesis, all checks, against the running whole.

`CAUDAL_FUZZ_EXAMPLES` says how many examples each operation gets (20; 10,000 before a release).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from caudal.app import api as composition
from caudal.registry.pki import authority, revocation

EXAMPLES = int(os.environ.get("CAUDAL_FUZZ_EXAMPLES", "20"))
# What a schema cannot say (a cursor is one of ours, a CSR is one, a name is free) is refused all the same.
RULES = "positive_data_acceptance"
SECONDS = 300 + EXAMPLES


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
async def test_every_operation_is_as_described(unstarted_api: Any, tmp_path: Path) -> None:
    for domain in composition.DOMAINS:
        await domain(unstarted_api.life, unstarted_api.parts)
    api = await unstarted_api.start()
    headers = await api.headers("fuzzed")
    async with api.admin.acquire() as connection, connection.transaction():
        await authority.create(connection, api.parts.sealer, days=365)
    await revocation.refresh(api.admin, api.parts.sealer, 24)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{api.url}/schema/openapi.json",
        "--header", f"Authorization: {headers['Authorization']}",
        "--checks", "all", "--exclude-checks", RULES,
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
        "--suppress-health-check", "all", "--request-timeout", "20", "--no-color",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    (tmp_path / "report.txt").write_text(text)
    failures = text.partition("= FAILURES =")[2].partition("= WARNINGS =")[0]
    assert process.returncode == 0, failures[-20_000:] or text[-4000:]
