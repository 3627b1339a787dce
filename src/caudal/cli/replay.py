"""`caudal replay`: recorded data, as a device publishes it."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from caudal.app import fleet
from caudal.app.tools import Installation
from caudal.cli._tools import data_option, json_option, progress, run
from caudal.cli.simulate import report
from caudal.telemetry import recordings


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
@click.option("--url", help="Where to publish: mqtt://user:password@host:port.")
@click.option("--tenant", default=fleet.TENANT, show_default=True)
@click.option("--site", default="recordings", show_default=True)
@click.option("--device", help="The device it is published as.  [default: the file's name]")
@click.option("--zone", default="UTC", show_default=True, help="Time zone of times that have no offset.")
@click.option("--time-column", help="Column of times.  [default: timestamp, date or the like]")
@click.option("--speed", type=click.FloatRange(0.001), help="So many times as fast.  [default: all it takes]")
@click.option("--limit", type=click.IntRange(1), help="This many rows alone.")
@json_option
def command(
    file: Path, data: Path | None, url: str | None, tenant: str, site: str, device: str | None, zone: str,
    time_column: str | None, speed: float | None, limit: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish the rows of a CSV file, a column of times and others of numbers, as a device measured them.

    Publishing it again is no harm: what is stored already is a known duplicate.
    """
    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise click.BadParameter(f"{zone!r} is no time zone, such as America/Sao_Paulo") from None
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(recordings.read(lines, where, time_column=time_column))[:limit]
    name = device or file.stem
    installation = Installation(data)
    topic = installation.topic("telem", tenant=tenant, site=site, device=name)
    target = url or installation.mqtt_url
    source = recordings.messages(rows, topic)
    with progress(f"Publishing {file.name}") as hear:

        def shown(acked: int, _sent: int) -> None:
            hear(acked, len(rows))

        if speed is None:
            work = fleet.run(target, [f"replay-{name}"], [source], progress=shown)
        else:
            work = fleet.play(target, f"replay-{name}", source, recordings.pauses(rows, speed), shown)
        summary = run(work)
    report(summary, as_json)
