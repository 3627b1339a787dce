"""What can be checked of deploy/ without an engine: commands exist, settings exist, units verify."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from caudal.app.settings import GROUPS
from caudal.cli import root
from caudal.core.settings import describe

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SETTINGS = {row.variable for kind in GROUPS.values() for row in describe(kind)}


def exists(words: list[str]) -> bool:
    """Whether `caudal words…` is a command; arguments that are no subcommand end the look."""
    command: click.Command = root
    for word in words:
        if not isinstance(command, click.Group):
            return True
        found = command.get_command(click.Context(command), word)
        if found is None:
            return False
        command = found
    return True


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    return found


def ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if service["image"].startswith("caudal:")}


def test_compose_runs_commands_that_exist(services: dict[str, Any]) -> None:
    found = ours(services)
    assert {"migrate", "ingest", "api", "router", "upkeep", "connector-whatsapp"} <= found.keys()
    assert [name for name, service in found.items() if not exists(service["command"])] == []


def test_compose_sets_settings_that_exist(services: dict[str, Any]) -> None:
    named = {key for service in ours(services).values() for key in service["environment"]}
    assert named - SETTINGS == set()
    example = {
        line.partition("=")[0]
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    }
    assert example - SETTINGS == {"POSTGRES_PASSWORD", "OBJECT_STORE_PASSWORD"}


def test_every_service_of_ours_has_a_limit_and_what_it_depends_on(services: dict[str, Any]) -> None:
    for name, service in ours(services).items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["depends_on"].keys() <= services.keys()


@pytest.mark.parametrize("unit", sorted(path.name for path in (DEPLOY / "systemd").iterdir()))
async def test_units_verify(unit: str, require: Callable[[str], str], tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    command = re.search(r"^ExecStart=/opt/caudal/bin/caudal (.*)$", text, re.MULTILINE)
    assert command is not None
    assert exists(command[1].split())
    # Where the tests run nothing is installed under /opt, and nobody called caudal need exist.
    for path in (DEPLOY / "systemd").iterdir():
        plain = re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", path.read_text(), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(re.sub(r"^User=.*\n", "", plain, flags=re.MULTILINE))
    process = await asyncio.create_subprocess_exec(
        require("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no",
        str(tmp_path / unit),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    complaints = [line for line in out.decode().splitlines() if unit in line]
    assert complaints == []
