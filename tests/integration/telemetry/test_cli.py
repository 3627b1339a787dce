"""The tools as people type them, against a database that a pipeline has filled."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import asyncpg

from caudal.mqtt.endpoint import Endpoint
from caudal.telemetry.submit import submit

from .conftest import MakePipeline
from .test_submit import ANYONE, v1


async def caudal(url: str, *words: str, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `caudal words`; `environ` beside the usual."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", *words, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": url, "UNKNOWN_TENANTS": "register", "COLUMNS": "200", **environ},
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_from_a_dead_letter_to_a_row(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1), ("bad", "warm")), ("x/y", b"\x1b[2J", ANYONE)])
    status, out, _ = await caudal(database_url, "dead-letters", "list", "--json")
    letters = {letter["reason"]: str(letter["id"]) for letter in json.loads(out)["items"]}
    assert (status, letters.keys()) == (0, {"topic", "value"})
    number = letters["value"]
    status, out, _ = await caudal(database_url, "dead-letters", "show", number)
    assert status == 0
    assert '>>>"warm"<<<' in out
    status, out, _ = await caudal(database_url, "dead-letters", "show", letters["topic"])
    assert "\x1b" not in out
    status, out, _ = await caudal(database_url, "dead-letters", "replay", "--reason", "value", "--json")
    assert (status, json.loads(out)[0]["result"]) == (1, "refused")
    good = v1("a", 1, ("t", 1), ("bad", 3))[1]
    status, out, err = await caudal(database_url, "dead-letters", "fix", number, "--payload", "-", stdin=good)
    assert status == 0, err
    status, out, err = await caudal(database_url, "dead-letters", "replay", number, "--json")
    assert status == 0, err
    assert json.loads(out)[0]["stored"] == 1
    assert await pool.fetchval("select v_num from ts_measure where point_id = 'bad'") == 3
    status, out, _ = await caudal(database_url, "dead-letters", "discard", "--all", "--json")
    assert json.loads(out) == {"discarded": 1}
    status, out, err = await caudal(database_url, "ledger", "--verify", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["agrees"]
    assert {check["what"]: check["counted"] for check in found["verified"] if check["tenant"] == "acme"} == {
        "stored": 2, "dead": 0, "held": 0,
    }  # fmt: skip
    status, out, _ = await caudal(database_url, "ledger")
    assert "acme" in out


async def test_a_ledger_that_is_wrong_is_said_so(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    await pool.execute("delete from caudal.sample")
    assert (await caudal(database_url, "ledger", "--json"))[0] == 0
    status, _, err = await caudal(database_url, "ledger", "--verify")
    assert status == 1
    assert "does not agree" in err


async def test_errors_say_what_to_do() -> None:
    for words in (("ledger", "--data", "/nowhere"), ("dead-letters", "list", "--data", "/nowhere")):
        status, _, err = await caudal("", *words)
        assert status == 2
        assert "caudal up" in err
    status, _, err = await caudal("postgresql://127.0.0.1:1/x", "ledger")
    assert status == 2
    assert "does not answer" in err


async def test_simulate_and_replay(
    endpoint: Endpoint, pool: asyncpg.Pool[Any], database_url: str, tmp_path: Path
) -> None:
    url = f"mqtt://127.0.0.1:{endpoint.port}"
    words = ("--devices", "10", "--count", "50", "--malformed", "0.1", "--duplicated", "0.1", "--json")
    status, out, err = await caudal(database_url, "simulate", "--url", url, "--tenant", "acme", *words)
    assert status == 0, err
    summary = json.loads(out)
    assert (summary["sent"], summary["acked"], summary["unacked"]) == (500, 500, 0)
    assert await pool.fetchval("select sum(messages) from caudal.ledger") == 500
    reasons = await pool.fetch("select distinct reason from caudal.dead_letter")
    assert {row["reason"] for row in reasons} <= {"json", "encoding", "unknown_format"}
    assert reasons
    recording = tmp_path / "pump.csv"
    recording.write_text("timestamp,value\n" + "".join(f"2014-01-01 00:{m:02}:00,{m}\n" for m in range(60)))
    for words in ((), ("--speed", "36000")):
        status, out, err = await caudal(
            database_url, "replay", str(recording), "--url", url, "--tenant", "acme", "--json", *words
        )
        assert status == 0, err
        assert json.loads(out)["acked"] == 60
    rows = await pool.fetchval("select count(*) from ts_measure where device_id = 'pump'")
    assert rows == 60
    status, _, err = await caudal(database_url, "simulate", "--url", "mqtt://127.0.0.1:1")
    assert status == 2
    assert "Is it up" in err


async def test_a_fleet_of_gateways(endpoint: Endpoint, pool: asyncpg.Pool[Any], database_url: str) -> None:
    words = ("--devices", "3", "--count", "5", "--format", "leituras", "--tenant", "acme", "--json")
    url = f"mqtt://127.0.0.1:{endpoint.port}"
    status, out, err = await caudal(database_url, "simulate", *words, MQTT_URL=url)
    assert status == 0, err
    assert json.loads(out)["acked"] == 15
    assert await pool.fetchval("select count(*) from tds_new_leitura_dispositivo") == 15 * 6
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 0
    # Another tenant's gateways are others, and one that nobody made is not made by a slip of the fingers.
    status, _, err = await caudal(
        database_url, "simulate", *words, "--tenant", "rival", MQTT_URL=url, UNKNOWN_TENANTS="refuse"
    )
    assert status == 2
    assert "tenant create rival" in err
    assert not await pool.fetchval("select true from caudal.tenant where name = 'rival'")
    status, out, err = await caudal(
        database_url, "simulate", *words, "--tenant", "rival", MQTT_URL=url, UNKNOWN_TENANTS="register"
    )
    assert status == 0, err
    assert await pool.fetchval("select count(distinct gateway_id) from tds_new_leitura_dispositivo") == 6


async def test_tools_use_the_topics_in_force(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str, tmp_path: Path
) -> None:
    scheme = {"TOPIC_TEMPLATES": "telem=fleet/{device}/up", "TOPIC_TENANT": "acme"}
    pipeline = await make_pipeline(topic_templates=scheme["TOPIC_TEMPLATES"], topic_tenant="acme")
    _, payload, _ = v1("a", 1, ("t", 1))
    await submit(pipeline, [("fleet/a/up", payload, ANYONE)])
    message = tmp_path / "m.json"
    message.write_bytes(payload)
    for words in (("--payload", str(message)), ()):
        status, out, err = await caudal(
            database_url, "trace", "--topic", "fleet/a/up", "--json", *words, **scheme
        )
        assert status == 0, err
        assert [row["tenant"] for row in json.loads(out)["rows"]] == ["acme"]
    status, _, err = await caudal(database_url, "simulate", "--tenant", "rival", **scheme)
    assert status == 2
    assert "TOPIC_TENANT" in err
    status, _, err = await caudal(database_url, "trace", "--topic", "x", TOPIC_TEMPLATES="telem=no")
    assert status == 2
    assert "TOPIC_TEMPLATES" in err
