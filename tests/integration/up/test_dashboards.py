"""Every panel of every dashboard, asked of a Prometheus that scraped a real run of the whole platform."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.integration.up.conftest import Up
from tests.integration.up.test_up import publish
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grafana_build", ROOT / "deploy" / "grafana" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scrape_settings(endpoints: dict[str, str]) -> str:
    """The jobs of deploy/prometheus, at the ports that this run got."""
    jobs = {
        "ingest": endpoints["metrics_url"],
        "api-service": f"{endpoints['http_url']}/actuator/prometheus",
        "router-worker": endpoints["router_metrics_url"],
        "connector-whatsapp": endpoints["whatsapp_metrics_url"],
        "connector-instagram": endpoints["instagram_metrics_url"],
        "upkeep": endpoints["upkeep_metrics_url"],
    }
    lines = ["global: {scrape_interval: 1s}", "scrape_configs:"]
    for job, url in jobs.items():
        address, _, path = url.removeprefix("http://").partition("/")
        lines.append(
            f"  - {{job_name: {job}, metrics_path: /{path}, static_configs: [{{targets: ['{address}']}}]}}"
        )
    return "\n".join(lines)


async def converse(http_url: str) -> None:
    """Messages to both sandbox phones, a refused one, and a call that nobody is signed in for."""
    async with httpx.AsyncClient(base_url=http_url, timeout=20) as client:
        signed = await client.post("/auth/token", json={"username": "user_a", "password": "pass_a"})
        token = signed.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        for number, person in enumerate(("whatsapp:+5511999998888", "instagram:@someone")):
            for turn in range(3):
                body = {
                    "conversation_id": f"panels-{number}",
                    "content": f"hello {turn}",
                    "recipient_id": person,
                }
                answer = await client.post("/v1/messages", json=body, headers=headers)
                assert answer.status_code == 202, answer.text
        blank = {"conversation_id": "panels-0", "content": ""}
        assert (await client.post("/v1/messages", json=blank, headers=headers)).status_code == 400


async def answers(client: httpx.AsyncClient, query: str) -> bool:
    asked = await client.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")})
    found: list[Any] = asked.json().get("data", {}).get("result", [])
    return bool(found) and any(row["value"][1] != "NaN" for row in found)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_panel_has_data(up: Up, require: Callable[[str], str], tmp_path: Path) -> None:
    binary = require("prometheus")
    endpoints = await up.start("--demo")
    settings = tmp_path / "prometheus.yml"
    settings.write_text(scrape_settings(endpoints))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary, f"--config.file={settings}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        dashboards = builder().DASHBOARDS
        queries = {
            f"{name}: {panel.title}: {legend}": query
            for name, (_, panels) in dashboards.items()
            for panel in panels
            for legend, query in panel.queries.items()
        }
        empty = dict(queries)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            until = time.monotonic() + 90
            turn = 0
            # A counter has a rate once it has moved between two scrapes: keep things moving till all have.
            while empty and time.monotonic() < until:
                turn += 1
                at = f"2026-01-01T00:{turn // 60:02d}:{turn % 60:02d}Z"
                await asyncio.to_thread(publish, endpoints["mqtt_url"], at)
                await converse(endpoints["http_url"])
                try:
                    empty = {name: query for name, query in empty.items() if not await answers(client, query)}
                except httpx.TransportError:
                    continue  # Prometheus is not up yet
        assert sorted(empty) == []
    finally:
        process.terminate()
        await process.wait()
