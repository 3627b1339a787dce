"""`caudal router`: make deliveries of accepted messages."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Make deliveries of accepted messages. Start as many as wanted: they share the work."""
    from caudal.app import router

    sys.exit(run_process(router.starter()))
