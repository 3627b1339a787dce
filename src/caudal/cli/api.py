"""`caudal api`: the HTTP API."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Answer HTTP requests on API_HOST and API_PORT."""
    from caudal.app import api

    sys.exit(run_process(api.start))
