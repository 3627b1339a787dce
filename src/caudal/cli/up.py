"""`caudal up`: the whole platform on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from caudal.app.process import run_process
from caudal.app.up import Platform
from caudal.core.lifecycle import Lifecycle


@click.command()
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True,
    help="Where everything is kept between runs.",
)  # fmt: skip
@click.option("--demo", is_flag=True, help="Add a simulated fleet, people, and a sandbox to write to.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that everything listens on.")
@click.option(
    "--ingest", type=click.IntRange(1, 64), default=1, show_default=True,
    help="Processes that take telemetry in: they share the MQTT port, or the subscription.",
)  # fmt: skip
def command(data: Path, demo: bool, host: str, ingest: int) -> None:
    """Start the whole platform: PostgreSQL, the MQTT endpoint, the API, and all the rest. Ctrl-C stops it.

    With DATABASE_URL it uses that PostgreSQL, with MQTT_URL it subscribes at that broker, not its own.
    """
    console = Console()
    began = time.monotonic()
    platform = Platform(data, demo=demo, host=host, environ=os.environ, ingest=ingest)

    async def start(life: Lifecycle) -> None:
        with console.status("Starting") as status:
            await platform.start(life, status.update)
        console.print(f"[bold]Caudal is up[/bold] ({time.monotonic() - began:.1f} s)")
        for name, address in platform.endpoints.items():
            # Whole on its line, however narrow the terminal: it is there to be copied.
            console.print(
                f"  {name.removesuffix('_url').replace('_', ' '):<18} {address}",
                soft_wrap=True, markup=False, highlight=False,
            )  # fmt: skip
        if platform.owner:
            console.print(
                f"Sign in as [bold]{platform.owner.email}[/bold] with [bold]{platform.owner.password}[/bold]"
                " (shown this once; change it)."
            )
        if demo:
            console.print(
                "Demonstration people: user_a, user_b, user_c with pass_a, pass_b, pass_c; `caudal chat`."
            )
        console.print(f"These are in {platform.directory / 'endpoints.json'}. Ctrl-C stops everything.")

    status = run_process(start, level="warning")
    console.print("Stopped; the data stays in", str(platform.directory))
    sys.exit(status)
