"""`caudal workers`: router, connectors and upkeep in one process."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Run router, connectors and upkeep in one process, each on its own metrics port."""
    from caudal.app import workers

    sys.exit(run_process(workers.start, grace=35))
