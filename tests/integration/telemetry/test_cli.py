"""The tools as people type them, against a database that a pipeline has filled."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import asyncpg

from caudal.telemetry.submit import submit

from .conftest import MakePipeline
from .test_submit import ANYONE, v1


async def caudal(url: str, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `caudal words`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", *words, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": url, "UNKNOWN_TENANTS": "register", "COLUMNS": "200"},
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
    letters = json.loads(out)["items"]
    assert (status, [letter["reason"] for letter in letters]) == (0, ["topic", "value"])
    number = str(letters[1]["id"])
    status, out, _ = await caudal(database_url, "dead-letters", "show", number)
    assert status == 0
    assert '>>>"warm"<<<' in out
    status, out, _ = await caudal(database_url, "dead-letters", "show", str(letters[0]["id"]))
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
