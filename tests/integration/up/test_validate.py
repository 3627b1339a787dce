"""`caudal validate` against a real `caudal up`: it passes, fails where it must, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from caudal.core.supervisor import Child
from tests.crash.conftest import Mosquitto
from tests.integration.up.conftest import ENVIRON, Up


async def caudal(*arguments: str) -> tuple[int, str, str]:
    """Run the command; returns its exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", *arguments, env=ENVIRON,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 100)
    return process.returncode or 0, out.decode(), err.decode()


async def left(database_url: str) -> dict[str, int]:
    """Rows by table of what a run could have left behind."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "select c.relname from pg_class c where c.relnamespace = 'caudal'::regnamespace"
            " and c.relkind in ('r', 'p') and not c.relispartition and exists (select from pg_attribute a"
            " where a.attrelid = c.oid and a.attname = 'tenant_id')"
        )
        known = "select id from caudal.tenant where name = 'default'"
        counts = {
            row["relname"]: await connection.fetchval(
                f"select count(*) from caudal.{row['relname']} where tenant_id is distinct from ({known})"
            )
            for row in tables
        }
        for table in ("sample", "rollup_hour", "rollup_minute", "rollup_day", "rollup_stale"):
            counts[table] = await connection.fetchval(
                f"select count(*) from caudal.{table} s"
                " where not exists (select from caudal.series r where r.id = s.series)"
            )
        counts["tenant"] = await connection.fetchval("select count(*) - 1 from caudal.tenant")
        counts["person"] = await connection.fetchval("select count(*) - 1 from caudal.person")
        return {name: count for name, count in counts.items() if count}
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_fresh_installation_passes_and_one_without_its_database_does_not(
    up: Up, tmp_path: Path
) -> None:
    endpoints = await up.start()
    data = str(up.directory)
    output = tmp_path / "report.json"
    status, out, err = await caudal("validate", "--data", data, "--json", "--output", str(output))
    report = json.loads(output.read_text())
    assert [result for result in report["results"] if result["status"] == "fail"] == []
    assert status == 0, out + err
    assert "PASSED" in out
    results = {result["name"]: result for result in report["results"]}
    assert len(results) == 20
    assert [result["name"] for result in report["results"] if result["status"] == "absent"] == []
    measured = results["throughput"]["measured"]
    assert measured["seconds"] >= 10
    assert measured["lost"] == 0
    assert measured["acknowledged"] == measured["sent"] >= 1900
    assert measured["looked_for_at_puback"] > 100
    assert results["latency"]["measured"]["puback_p99_ms"] > 0
    assert results["accepting"]["measured"]["not_there_at_202"] == 0
    assert endpoints["database_url"].rpartition("@")[0].rpartition(":")[2] not in json.dumps(report["target"])

    # But for the bytes of one file, which the sweep of files removes.
    assert await left(endpoints["database_url"]) == {"object_intent": 1}
    status, out, err = await caudal("ledger", "--verify", "--data", data)
    assert status == 0, out + err

    # The server's own process, as its directory names it.
    os.kill(
        int((up.directory / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGINT
    )
    status, out, err = await caudal("validate", "--data", data)
    assert status in (1, 2)
    assert "database" in err


@asynccontextmanager
async def ingest(up: Up, endpoints: dict[str, str], *arguments: str, **more: str) -> AsyncIterator[list[str]]:
    """Another ingest on that platform's database; gives the options that have validate use it."""
    environ = {
        **ENVIRON, "DATABASE_URL": endpoints["database_url"], "UNKNOWN_TENANTS": "register", "MQTT_PORT": "0",
        "METRICS_PORT": "0", "STATE_DIR": str(up.directory / "other"), **more,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }  # fmt: skip
    child = Child(arguments[0], arguments, environ, up.directory / "other.log")
    found = await child.start()
    try:
        yield [
            "--database-url", endpoints["database_url"], "--http-url", endpoints["http_url"],
            "--mqtt-url", found["mqtt_url"], "--metrics-url", found["metrics_url"],
        ]  # fmt: skip
    finally:
        await child.stop()


async def results(output: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Validate; returns the exit status and what each check came to."""
    status, out, err = await caudal("validate", *arguments, "--json", "--output", str(output))
    assert output.exists(), out + err
    return status, {found["name"]: found for found in json.loads(output.read_text())["results"]}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_acknowledging_before_the_commit_is_caught_and_so_is_a_loss(up: Up, tmp_path: Path) -> None:
    endpoints = await up.start()
    async with ingest(up, endpoints, "hasty") as target:
        status, found = await results(
            tmp_path / "hasty.json", *target, "--only", "throughput", "--only", "latency"
        )
    assert status == 1
    # For certain, by what cannot be stored yet; and as a client sees it, reading when the PUBACK comes.
    assert found["throughput"]["measured"]["acknowledged_while_held_back"] == 1
    assert found["throughput"]["measured"]["not_there_at_puback"] > 0
    assert found["latency"]["measured"]["not_there_at_puback"] > 0
    assert found["clean-up"]["status"] == "pass"
    assert await left(endpoints["database_url"]) == {}

    async with ingest(up, endpoints, "hasty", "lossy") as target:
        status, found = await results(
            tmp_path / "lossy.json", *target, "--only", "throughput", "--only", "overall"
        )
    assert status == 1
    measured = found["throughput"]["measured"]
    # Each 97th of 2,000 or so, give or take those before and after the load.
    assert abs(measured["lost"] - measured["sent"] / 97) <= 2
    assert measured["acknowledged"] == measured["sent"]
    assert found["overall"]["status"] == "fail"
    assert await left(endpoints["database_url"]) == {}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_behind_a_broker_its_acknowledgement_promises_less(
    up: Up, require: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(require("mosquitto"), folder)
    await broker.start()
    try:
        endpoints = await up.start()
        url = f"mqtt://127.0.0.1:{broker.port}"
        async with ingest(up, endpoints, "caudal", "ingest", MQTT_URL=url) as target:
            # Its PUBACK comes before the commit, which shows.
            status, found = await results(tmp_path / "strict.json", *target, "--only", "latency")
            assert status == 1
            assert found["latency"]["measured"]["not_there_at_puback"] > 0
            names = ("mqtt", "v1", "dead-letters", "ack-idempotency", "throughput", "latency", "overall")
            only = [word for name in names for word in ("--only", name)]
            status, found = await results(tmp_path / "broker.json", *target, "--broker", *only)
            assert [one["faults"] for one in found.values() if one["faults"]] == []
            assert status == 0
            assert found["throughput"]["measured"]["lost"] == 0
    finally:
        await broker.stop()
