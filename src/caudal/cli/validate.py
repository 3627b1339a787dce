"""`caudal validate`: the twelve checks that operators know, and messaging's, against a running system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caudal.app.tools import Installation
from caudal.app.validate.checks import Check
from caudal.app.validate.report import Report, Result
from caudal.app.validate.run import validate
from caudal.app.validate.settings import Load, Target, ValidateSettings
from caudal.cli._tools import data_option, json_option, print_json, printable, run
from caudal.core.settings import load

MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "absent": "[yellow]absent[/]"}


@click.command()
@data_option
@click.option("--database-url", help="An administrator's connection; it makes and removes the tenant.")
@click.option(
    "--mqtt-url", help="With credentials that may publish for any tenant: mqtt://user:password@host."
)
@click.option("--http-url", help="The API.")
@click.option("--metrics-url", multiple=True, help="Ingest's metrics; repeat it for several processes.")
@click.option("--tenant", help="Tenant to work under.  [default: VALIDATE_TENANT, else caudal-validate]")
@click.option(
    "--rate", type=click.FloatRange(1, 10_000), default=200.0, show_default=True, help="Messages a second."
)
@click.option(
    "--seconds", type=click.FloatRange(10, 600), default=10.0, show_default=True, help="To measure rates."
)
@click.option(
    "--latency-ms", type=click.FloatRange(1), default=1000.0, show_default=True, help="Allowed at p95."
)
@click.option("--broker", is_flag=True, help="A broker stands before Caudal: its PUBACK is not ours.")
@click.option("--only", multiple=True, metavar="CHECK", help="This check alone; may be repeated.")
@json_option
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON there.")
def command(
    data: Path | None, database_url: str | None, mqtt_url: str | None, http_url: str | None,
    metrics_url: tuple[str, ...], tenant: str | None, rate: float, seconds: float, latency_ms: float,
    broker: bool, only: tuple[str, ...], as_json: bool, output: Path | None,
) -> None:  # fmt: skip
    """Check a running system, in production too: under a tenant of its own, removed afterwards.

    Exits with 0 when all pass, 1 when one fails, 2 when it could not run.
    """
    installation = Installation(data)
    target = Target(
        database=database_url or installation.database_url,
        mqtt=mqtt_url or installation.mqtt_url,
        http=(http_url or installation.http_url).rstrip("/"),
        metrics=metrics_url or installation.metrics_urls,
        scheme=installation.scheme,
    )
    settings = load(ValidateSettings, os.environ)
    status = Console(stderr=True)

    def begins(check: Check) -> None:
        if status.is_terminal:
            status.print(f"[dim]{check.number:>2}  {check.title} …[/]")

    report = run(
        validate(
            target, Load(rate, seconds, latency_ms, broker), tenant or settings.validate_tenant,
            only=only, begins=begins,
        )
    )  # fmt: skip
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if as_json and output is None:
        print_json(report)
    else:
        _print(report)
    sys.exit(0 if report.passed else 1)


def _print(report: Report) -> None:
    table = Table(
        title=f"caudal validate, tenant {report.tenant}, {report.seconds:.0f} s", title_justify="left"
    )
    for column in ("", "check", "", "s"):
        table.add_column(column, justify="right" if column in ("", "s") and not table.columns else "left")
    table.add_column("what was found", overflow="fold")
    for result in report.results:
        table.add_row(
            str(result.number), result.title, MARKS[result.status], f"{result.seconds:.1f}", _found(result)
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    counts = {status: sum(result.status == status for result in report.results) for status in MARKS}
    said = f"{counts['pass']} passed, {counts['fail']} failed, {counts['absent']} not served here"
    if report.left_out:
        said += f", {len(report.left_out)} left out"
    click.echo(f"{'PASSED' if report.passed else 'FAILED'}: {said}.")


def _found(result: Result) -> Text:
    return Text("\n".join(printable(line) for line in (result.faults or [result.sentence])))
