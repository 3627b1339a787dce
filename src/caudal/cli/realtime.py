"""`caudal realtime`: a gateway of sockets."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
def command() -> None:
    """Run a gateway of WebSockets as a process of its own; as many as wanted."""
    from caudal.app import realtime

    sys.exit(run_process(realtime.starter()))
