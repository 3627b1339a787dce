"""Alert rules, runbooks and dashboards, held against Prometheus itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grafana_build", ROOT / "deploy" / "grafana" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def run(*command: str, cwd: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
)
async def test_promtool_agrees(require: Callable[[str], str], arguments: tuple[str, ...]) -> None:
    await run(require("promtool"), *arguments, cwd=PROMETHEUS)


def test_every_alert_has_a_test_and_a_page() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text()))
    tested = set(
        re.findall(r"alertname: (\w+), exp_alerts: \[\{", (PROMETHEUS / "alerts.test.yml").read_text())
    )
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert alerts == tested
    assert alerts == pages


def test_dashboards_are_what_the_builder_makes() -> None:
    builder = load_builder()
    for name in builder.DASHBOARDS:
        path = ROOT / "deploy" / "grafana" / f"{name}.json"
        assert path.read_text() == builder.text(name), "run: python deploy/grafana/build.py"
        assert json.loads(path.read_text())["uid"] == f"caudal-{name}"
