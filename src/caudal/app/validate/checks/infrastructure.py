"""Everything answers: the database and the views people query, MQTT, the API and its parts, the metrics."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 1
TITLE = "Infrastructure"
VIEWS = (
    "ts_measure", "ingest_errors", "cmd_ack", "tds_new_leitura_dispositivo", "tds_new_gateway",
    "tds_new_consumo_mensal",
)  # fmt: skip


async def run(context: Context, finding: Finding) -> None:
    reader = context.ground.reader
    began = perf_counter()
    version = await reader.fetchval("select current_setting('server_version')")
    finding.measured["postgresql"] = str(version)
    finding.measured["database_ms"] = round((perf_counter() - began) * 1000, 2)
    finding.expect(int(str(version).split(".")[0]) >= 15, f"PostgreSQL is {version}; 15 or later is needed.")
    for view in VIEWS:
        finding.expect(
            await reader.fetchval("select to_regclass($1) is not null", f"public.{view}"), f"No view {view}."
        )
    line = await context.line("infrastructure")
    finding.measured["mqtt_ms"] = round(await line.ping() * 1000, 2)
    began = perf_counter()
    health = await context.http.get(f"{context.target.http}/health/ready")
    finding.measured["health_ms"] = round((perf_counter() - began) * 1000, 2)
    parts = health.json().get("components", {})
    for name, part in parts.items():
        finding.expect(part.get("status") == "UP", f"{name} is {part.get('status')} ({part.get('error')}).")
    finding.expect(health.status_code == 200, f"The API's health is {health.status_code}.")
    context.baseline = await context.counters()
    finding.expect("ingest_queue_size" in context.baseline, "The metrics are not those of ingest.")
    finding.sentence = f"PostgreSQL {version}, MQTT, API ({', '.join(sorted(parts))}) and metrics answer."
