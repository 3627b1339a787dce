"""Writes the dashboards (`python deploy/grafana/build.py`): each is a list of panels with their queries.

A test holds the files against this, and runs every query against a Prometheus that scraped a real run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Panel(NamedTuple):
    """A time series: title, unit (Grafana's names), queries by legend."""

    title: str
    unit: str
    queries: dict[str, str]


def quantiles(name: str, by: str = "") -> dict[str, str]:
    """Queries for p50, p95 and p99 of a histogram."""
    group = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"p{percent}{legend}": (
            f"histogram_quantile({percent / 100}, sum by ({group}) (rate({name}_bucket[$__rate_interval])))"
        )
        for percent in (50, 95, 99)
    }


def rate(name: str, by: str = "") -> str:
    """A counter's rate, summed."""
    return f"sum by ({by}) (rate({name}[$__rate_interval]))" if by else f"sum(rate({name}[$__rate_interval]))"


DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "ingest": (
        "Caudal: ingest",
        [
            Panel("Messages", "ops", {"{{type}}": rate("ingest_messages_total", "type")}),
            Panel("Samples stored", "ops", {"samples": rate("ingest_points_total")}),
            Panel("Dead letters", "ops", {"{{reason}}": rate("ingest_errors_total", "reason")}),
            Panel("Duplicates", "ops", {"duplicates": rate("ingest_duplicates_total")}),
            Panel("Receipt to commit", "s", quantiles("ingest_commit_seconds")),
            Panel("Device's timestamp to commit", "s", quantiles("ingest_latency_seconds")),
            Panel("In flight", "short", {"messages": "sum(ingest_queue_size)"}),
            Panel("Messages in a batch", "short", quantiles("ingest_batch_size")),
            Panel(
                "Connections", "short", {"connected": "sum(mqtt_connections)", "paused": "sum(mqtt_paused)"}
            ),
            Panel("Memory", "bytes", {"{{job}}": 'process_resident_memory_bytes{job="ingest"}'}),
            Panel("Devices", "short", {"online": "max(devices_online)", "silent": "max(devices_silent)"}),
            Panel("Ledger's difference", "short", {"parts": "max(ledger_difference_parts)"}),
            Panel("Open dead letters", "short", {"letters": "max(dead_letters_open)"}),
            Panel("Rollups: hours made anew", "ops", {"hours": rate("rollup_hours_total")}),
            Panel(
                "Rollups: read from samples since", "s",
                {"behind": "time() - max(rollup_threshold_timestamp_seconds)"},
            ),
        ],
    ),
    "overview": (
        "Caudal: messaging overview",
        [
            Panel("Accepted", "ops", {"messages": rate("messages_accepted_total")}),
            Panel("Routed", "ops", {"{{status}}": rate("messages_processed_total", "status")}),
            Panel("Sent", "ops", {"{{channel}} {{status}}": rate("messages_sent_total", "channel, status")}),
            Panel("Lag", "short", {"{{topic}}": "sum by (topic) (kafka_consumer_lag)"}),
            Panel("Breakers", "short", {"{{channel}}": "max by (channel) (circuit_breaker_state)"}),
            Panel("Processes", "short", {"{{job}}": "up"}),
        ],
    ),
    "api": (
        "Caudal: API",
        [
            Panel("Requests", "ops", {"{{status}}": rate("http_requests_total", "status")}),
            Panel("Requests by route", "ops", {"{{path}}": rate("http_requests_total", "path")}),
            Panel("Latency", "s", quantiles("http_request_duration_seconds")),
            Panel("Accepted", "ops", {"messages": rate("messages_accepted_total")}),
            Panel("Refused", "ops", {"{{reason}}": rate("messages_rejected_total", "reason")}),
            Panel("Publishing to the log", "s", quantiles("log_publish_duration_seconds")),
            Panel("Sockets", "short", {"open": "sum(websocket_connections_active)"}),
            Panel("Memory", "bytes", {"{{job}}": 'process_resident_memory_bytes{job="api-service"}'}),
        ],
    ),
    "router": (
        "Caudal: router",
        [
            Panel("Consumed", "ops", {"{{topic}}": rate("messages_consumed_total", "topic")}),
            Panel("Routed", "ops", {"{{status}}": rate("messages_processed_total", "status")}),
            Panel("Failed", "ops", {"{{reason}}": rate("messages_failed_total", "reason")}),
            Panel("Lag", "short", {"{{topic}} {{partition}}": "kafka_consumer_lag"}),
            Panel("Poll to commit", "s", quantiles("processing_duration_seconds")),
            Panel("Deliveries made", "ops", {"{{channel}}": rate("deliveries_created_total", "channel")}),
        ],
    ),
    "connectors": (
        "Caudal: connectors",
        [
            Panel("Sent", "ops", {"{{channel}} {{status}}": rate("messages_sent_total", "channel, status")}),
            Panel("Provider's answer", "s", quantiles("connector_api_duration_seconds", "channel")),
            Panel("Breaker: 1 open, 2 half open", "short", {"{{channel}}": "circuit_breaker_state"}),
            Panel(
                "Breaker's changes", "ops",
                {"{{channel}} to {{to}}": rate("circuit_breaker_transitions_total", "channel, to")},
            ),
            Panel("Webhooks", "ops", {"{{channel}} {{kind}}": rate("webhook_events_total", "channel, kind")}),
        ],
    ),
}  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """The dashboard as Grafana's JSON."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"caudal-{name}",
        "title": title,
        "tags": ["caudal"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": {"type": "prometheus", "uid": "${source}"},
                "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + index), "expr": expr, "legendFormat": legend}
                    for index, (legend, expr) in enumerate(panel.queries.items())
                ],
            }
            for number, panel in enumerate(panels)
        ],
    }


def text(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=2) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / f"{each}.json").write_text(text(each))
