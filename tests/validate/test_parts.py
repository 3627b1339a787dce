"""Checks are found and told apart; secrets stay out of reports; figures are what they say."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from caudal.app.validate.checks import every
from caudal.app.validate.context import percentiles
from caudal.app.validate.line import Address
from caudal.app.validate.report import Finding
from caudal.app.validate.run import chosen
from caudal.app.validate.settings import Target
from caudal.core.errors import InvalidInput


def test_there_are_the_twelve_that_operators_know_and_those_of_messaging() -> None:
    checks = every()
    assert [check.number for check in checks] == list(range(1, len(checks) + 1))
    telemetry = [check.name for check in checks if check.area == "telemetry"]
    assert telemetry == [
        "infrastructure", "mqtt", "v1", "vendor-formats", "dead-letters", "ack-idempotency", "throughput",
        "latency", "out-of-order", "backpressure", "metrics", "overall",
    ]  # fmt: skip
    assert [check.name for check in checks if check.area == "messaging"] == [
        "accepting", "idempotency", "order", "delivery", "socket", "webhook", "files",
    ]  # fmt: skip


def test_a_name_that_is_no_check_is_said() -> None:
    kept, left_out = chosen(["latency"])
    assert [check.name for check in kept] == ["latency"]
    assert "throughput" in left_out
    with pytest.raises(InvalidInput, match="latenz"):
        chosen(["latenz"])


def test_no_secret_is_shown() -> None:
    target = Target(
        "postgresql://u:dbsecret@db:5432/x",
        "mqtt://admin:mqsecret@mq:1883",
        "https://k:apisecret@api",
        ("http://m/x",),
    )
    shown = str(target.shown())
    assert "secret" not in shown
    assert "mq:1883" in shown


def test_percentiles_are_of_what_was_measured() -> None:
    found = percentiles([n / 1000 for n in range(100)], "x")
    assert found == {"x_p50_ms": 50.0, "x_p95_ms": 95.0, "x_p99_ms": 99.0, "x_max_ms": 99.0}
    assert percentiles([], "x") == {}


def test_a_finding_notes_what_is_not_as_it_should_be() -> None:
    finding = Finding()
    assert finding.expect(True, "never said")
    assert finding.equal("Rows", 1, 1)
    assert not finding.faults
    assert not finding.equal("Rows", 2, 1)
    assert finding.faults == ["Rows: 2, not 1."]


def test_addresses_of_mqtt() -> None:
    found = Address.of("mqtt://a%40b:p%3Aw@host:1884")
    assert (found.host, found.port, found.tls, found.username, found.password) == (
        "host", 1884, False, "a@b", b"p:w",
    )  # fmt: skip
    assert Address.of("mqtts://host").port == 8883
    with pytest.raises(InvalidInput):
        Address.of("http://host")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "nowhere"],
        ["--database-url", "postgresql://x@127.0.0.1:1/x", "--mqtt-url", "mqtt://127.0.0.1:1",
         "--http-url", "http://127.0.0.1:1", "--metrics-url", "http://127.0.0.1:1"],
    ],
)  # fmt: skip
def test_what_could_not_run_is_2_and_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "caudal", "validate", *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("caudal: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_stops_it_finds_nothing_left(
    number: signal.Signals, database_url: str, pool: asyncpg.Pool[Any]
) -> None:
    came = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A door that never says hello: the run is in the middle of it.
        came.set()
        await asyncio.Event().wait()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caudal", "validate", "--database-url", database_url, "--mqtt-url",
        f"mqtt://127.0.0.1:{port}", "--http-url", "http://127.0.0.1:1", "--metrics-url", "http://127.0.0.1:1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await asyncio.wait_for(came.wait(), 30)
        assert await pool.fetchval("select count(*) from caudal.tenant") == 1
        process.send_signal(number)
        _, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
        server.close()
    assert process.returncode == 2, err
    assert b"is removed" in err
    assert await pool.fetchval("select count(*) from caudal.tenant") == 0
