"""The API does what its own description says: schemathesis, every check, against the running whole.

`CAUDAL_FUZZ_EXAMPLES` says how many examples are made in all, shared evenly among the operations (3,000;
10,000 before a release); `CAUDAL_FUZZ_ONLY` names one operation to make them all for ("POST /v1/files"), and
`CAUDAL_FUZZ_SEED` where to begin: the same place unless told otherwise, so that only a change makes it fail.
`schemathesis.toml` beside this file says which check does not hold where, and why.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from caudal.app import api as composition
from caudal.registry.pki import authority, revocation

EXAMPLES = int(os.environ.get("CAUDAL_FUZZ_EXAMPLES", "3000"))
SEED = os.environ.get("CAUDAL_FUZZ_SEED", "1")
ONLY = os.environ.get("CAUDAL_FUZZ_ONLY", "")
SECONDS = 300 + EXAMPLES // 2


# One of each, under the number 1, which the fuzzer tries: what is not there answers 404 and shows little.
PLANTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/sites", {"name": "plant"}),
    ("/api/profiles", {"name": "meter", "commands": [{"name": "reset"}]}),
    ("/api/gateways", {"code": "g1", "mac": "02:00:00:00:00:01", "site_id": 1}),
    ("/api/devices", {"name": "pump", "site_id": 1, "profile_id": 1}),
    ("/api/points", {"device_id": 1, "name": "temp"}),
    ("/api/devices/1/commands", {"name": "reset"}),
    ("/api/devices/1/credentials", {}),
    ("/api/bootstrap-certificates", {"label": "batch"}),
    ("/api/gateways/1/certificate", {}),
)


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
    for path, body in PLANTED:
        answer = await api.client.post(path, json=body, headers=headers)
        assert answer.status_code in (201, 202), answer.text
    paths = (await api.client.get("/schema/openapi.json")).json()["paths"]
    operations = 1 if ONLY else sum(len(methods) for methods in paths.values())
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file", str(Path(__file__).parent / "schemathesis.toml"),
        "run", f"{api.url}/schema/openapi.json",
        "--header", f"Authorization: {headers['Authorization']}", "--checks", "all",
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(-(-EXAMPLES // operations)),
        "--suppress-health-check", "all", "--request-timeout", "20", "--no-color",
        "--seed", SEED, *(("--include-name", ONLY) if ONLY else ()),
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    (tmp_path / "report.txt").write_text(text)
    print(text[-1500:])  # with `pytest -s`: how many were made
    failures = text.partition("= FAILURES =")[2].partition("= WARNINGS =")[0]
    assert process.returncode == 0, failures[-20_000:] or text[-4000:]
    made = re.search(r"Test cases:\s+(\d+) generated", text)
    assert made is not None
    assert int(made[1]) >= EXAMPLES, "fewer examples than were asked for"
