"""`caudal simulate`: a fleet that is not there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from caudal.app import fleet
from caudal.app.process import run_process
from caudal.app.tools import Installation, register_gateways
from caudal.cli._tools import data_option, json_option, print_json, print_table, progress, run
from caudal.telemetry import simulation

SHARE = click.FloatRange(0, 1)


@click.command()
@data_option
@click.option("--url", help="Where to publish: mqtt://user:password@host:port.")
@click.option("--tenant", default=fleet.TENANT, show_default=True)
@click.option("--devices", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option("--sites", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--rate", type=click.FloatRange(0.01), help="Messages a second, of all.  [default: no limit]")
@click.option("--seconds", type=click.FloatRange(0.1), help="For how long.")
@click.option("--count", type=click.IntRange(1), help="Messages of each device; 100 without --seconds.")
@click.option("--format", "form", type=click.Choice(list(simulation.FORMATS)), default="v1")
@click.option("--points", type=click.IntRange(1, 1000), default=6, show_default=True, help="In a message.")
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option("--late", type=SHARE, default=0.0, help="Part measured an hour to a year ago.")
@click.option("--duplicated", type=SHARE, default=0.0, help="Part published twice.")
@click.option("--malformed", type=SHARE, default=0.0, help="Part that nobody can read.")
@click.option("--ahead", type=SHARE, default=0.0, help="Part by a clock an hour ahead.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same fleet.")
@click.option("--demo", is_flag=True, hidden=True)
@json_option
def command(
    data: Path | None, url: str | None, tenant: str, devices: int, sites: int, rate: float | None,
    seconds: float | None, count: int | None, form: str, points: int, qos: int, late: float,
    duplicated: float, malformed: float, ahead: float, seed: int, demo: bool, as_json: bool,
) -> None:  # fmt: skip
    """Publish as a fleet of devices, and say what was acknowledged and how soon.

    Parts are from 0 to 1: --malformed 0.02 spoils one message in fifty. With --format leituras the devices
    are gateways, which are registered first (with --url: which must be). Exits with 1 when something was not
    acknowledged.
    """
    if demo:
        sys.exit(run_process(fleet.start_demo))
    if count is None and seconds is None:
        count = 100
    installation = Installation(data)
    machines = simulation.fleet(devices, sites, seed)
    faults = simulation.Faults(late=late, duplicated=duplicated, malformed=malformed, ahead=ahead)
    sources = fleet.sources(
        machines, tenant, installation.scheme, clock=time.time, form=form, points=points, faults=faults,
        seed=seed, count=count,
    )  # fmt: skip
    if form == "leituras" and url is None:
        run(register_gateways(installation, tenant, machines))
    total = count * devices if count is not None else int((rate or 0) * (seconds or 0)) or None
    with progress("Publishing") as hear:
        summary = run(
            fleet.run(
                url or installation.mqtt_url, [f"sim-{seed}-{m.name}" for m in machines], sources,
                rate=rate, seconds=seconds, qos=qos, progress=hear, total=total,
            )
        )  # fmt: skip
    report(summary, as_json)


def report(summary: fleet.Summary, as_json: bool) -> None:
    """Print it, and exit."""
    if as_json:
        print_json(summary)
    else:
        names = summary.__struct_fields__
        print_table("Published", ("what", ""), [[name, getattr(summary, name)] for name in names])
    if summary.unacked or summary.refused:
        click.echo(
            "Not everything was acknowledged; `caudal ledger` and the log of ingest say more.", err=True
        )
    sys.exit(1 if summary.unacked or summary.refused else 0)
