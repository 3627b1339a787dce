"""`caudal ingest`: take telemetry in."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Take telemetry in: our MQTT endpoint, or a subscription to the broker that MQTT_URL names."""
    from caudal.app import ingest

    sys.exit(run_process(ingest.start))
