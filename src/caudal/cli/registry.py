"""`caudal registry`: gateways and devices of one's tenant, through the API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeAlias

import click

from caudal.cli._api import api_options, call
from caudal.cli._tools import json_option, print_json, print_table
from caudal.client import Client
from caudal.registry.devices import Device
from caudal.registry.gateways import Gateway
from caudal.registry.transfer import Report

THING = click.Choice(["gateways", "devices"])
Item: TypeAlias = Gateway | Device
COLUMNS = {
    "gateways": ("id", "code", "mac", "name", "status", "active_devices", "capacity", "last_heard"),
    "devices": ("id", "name", "display_name", "kind", "status", "presence", "last_heard"),
}


@click.group()
def command() -> None:
    """Gateways and devices of your tenant: look, take in, write out. Through the API, with an API key."""


@command.command("list")
@click.argument("thing", type=THING)
@click.option("--search", help="Text in names and codes.")
@api_options
@json_option
def list_things(
    thing: str, search: str | None, url: str | None, key: str | None, data: Path | None, as_json: bool
) -> None:
    """Show gateways or devices."""

    async def work(client: Client) -> list[Any]:
        kind: type[Any] = Gateway if thing == "gateways" else Device
        return [item async for item in client.pages(f"/api/{thing}", kind, search=search, limit=200)]

    items = call(url, key, data, work)
    if as_json:
        print_json(items)
    else:
        rows = [[getattr(item, column) for column in COLUMNS[thing]] for item in items]
        print_table(thing.capitalize(), COLUMNS[thing], rows)


@command.command("import")
@click.argument("thing", type=THING)
@click.argument("file", type=click.File("rb"))
@click.option("--store", is_flag=True, help="Store them; without, only what is wrong is said.")
@api_options
@json_option
def import_things(
    thing: str, file: Any, store: bool, url: str | None, key: str | None, data: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Take in gateways or devices from a CSV FILE (`-` for standard input): all lines or none."""
    body = file.read()

    async def work(client: Client) -> Report:
        return await client.post(f"/api/{thing}/import", body, Report, dry_run="false" if store else "true")

    report = call(url, key, data, work)
    if as_json:
        print_json(report)
    else:
        wrong = [(line.line, line.name, line.error) for line in report.lines if not line.ok]
        if wrong:
            print_table("What is wrong", ("line", "name", "why"), wrong)
        done = "stored" if report.stored else "nothing was stored"
        click.echo(f"{report.good} good, {report.bad} bad; {done}")
    sys.exit(1 if report.bad else 0)


@command.command("export")
@click.argument("thing", type=THING)
@api_options
def export_things(thing: str, url: str | None, key: str | None, data: Path | None) -> None:
    """Write gateways or devices as CSV to standard output, as `import` takes it."""

    async def work(client: Client) -> bytes:
        return (await client.request("GET", f"/api/{thing}/export")).content

    click.echo(call(url, key, data, work), nl=False)
