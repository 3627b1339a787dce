"""What can be checked of deploy/ without an engine: commands exist, settings exist, units verify."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
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
    assert example - SETTINGS == {"POSTGRES_PASSWORD", "OBJECT_STORE_PASSWORD", "GRAFANA_PASSWORD"}


def test_every_service_has_limits_and_a_health_check_and_what_it_depends_on(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert set(service.get("depends_on", {})) <= services.keys()
        assert name == "migrate" or service["healthcheck"]["test"], name
        assert not service["image"].endswith(":latest"), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source


def ports(service: dict[str, Any]) -> set[int]:
    """Those that its health check asks."""
    return {int(found) for found in re.findall(r"127\.0\.0\.1:(\d+)/", str(service["healthcheck"]["test"]))}


def test_prometheus_asks_the_services_where_they_listen(services: dict[str, Any]) -> None:
    folder = DEPLOY / "prometheus"
    plain, composed = (
        yaml.safe_load((folder / name).read_text()) for name in ("prometheus.yml", "prometheus.compose.yml")
    )
    assert f"--config.file=/etc/prometheus/{'prometheus.compose.yml'}" in services["prometheus"]["command"]
    for here, there in zip(plain["scrape_configs"], composed["scrape_configs"], strict=True):
        host, port = there["static_configs"][0].pop("targets")[0].split(":")
        assert here["static_configs"][0].pop("targets") == [f"127.0.0.1:{port}"]
        assert here == there
        assert host in services
        if host in ours(services):
            assert ports(services[host]) == {int(port)}, host
    assert {k: v for k, v in plain.items() if k != "scrape_configs"} == {
        k: v for k, v in composed.items() if k != "scrape_configs"
    }
    asked = {config["job_name"] for config in plain["scrape_configs"]}
    assert asked >= {
        "ingest", "api-service", "router-worker", "connector-whatsapp", "connector-instagram", "object-store"
    }  # fmt: skip


def test_grafana_finds_its_source_and_the_dashboards(services: dict[str, Any]) -> None:
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    found = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((found / "datasources" / "caudal.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    folder = yaml.safe_load((found / "dashboards" / "caudal.yml").read_text())["providers"][0]
    assert mounts["./grafana"] == folder["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"


MANIFESTS = {
    f"{path.name}: {found['kind']} {found['metadata']['name']}": found
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for found in yaml.safe_load_all(path.read_text())
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_what_kubernetes_takes(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], "1.32", strict=True)


def test_manifests_run_commands_and_set_settings_that_exist() -> None:
    pods = {name: found["spec"]["template"]["spec"] for name, found in MANIFESTS.items()
            if found["kind"] in ("Deployment", "Job")}  # fmt: skip
    for name, pod in pods.items():
        (container,) = pod["containers"]
        assert exists(container["args"]), name
        assert container["resources"]["limits"]["memory"], name
        assert {entry["name"] for entry in container.get("env", ())} <= SETTINGS
        for probe in ("startupProbe", "readinessProbe"):
            if name.startswith("migrate"):
                continue
            port = container[probe]["httpGet"]["port"]
            assert port in {entry["containerPort"] for entry in container["ports"]}
        held = {volume["name"] for volume in pod.get("volumes", ())}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= held
    said = next(found for found in MANIFESTS.values() if found["kind"] == "ConfigMap")["data"]
    assert said.keys() <= SETTINGS
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert {name.partition(":")[0] for name in MANIFESTS} == set(listed)


def test_every_process_is_in_compose_kubernetes_and_systemd(services: dict[str, Any]) -> None:
    composed = {" ".join(service["command"]) for service in ours(services).values()}
    applied = {
        " ".join(found["spec"]["template"]["spec"]["containers"][0]["args"])
        for found in MANIFESTS.values()
        if found["kind"] in ("Deployment", "Job")
    }
    assert composed == applied
    units = {
        re.search(r"^ExecStart=/opt/caudal/bin/caudal (.*)$", path.read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for path in (DEPLOY / "systemd").iterdir()
    }
    assert {command.replace("%i", "").strip() for command in units} == {
        re.sub(r" (whatsapp|instagram|apprise)$", "", command) for command in composed
    }


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
