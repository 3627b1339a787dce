"""`caudal upkeep`: what has to be done in the background."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Keep rollups, make partitions, apply retention. One is enough; several take turns."""
    from caudal.app import upkeep

    sys.exit(run_process(upkeep.starter()))
