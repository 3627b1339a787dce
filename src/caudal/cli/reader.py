"""`caudal reader`: logins of the database that read one tenant's views."""

from __future__ import annotations

from pathlib import Path

import click

from caudal.cli._tools import data_option, json_option, print_list, print_made
from caudal.cli.tenant import act


@click.group()
def command() -> None:
    """Readers: people who read their tenant's views with SQL, and nothing else."""


@command.command("list")
@click.option("--tenant", help="Of this tenant alone.")
@data_option
@json_option
def list_readers(tenant: str | None, data: Path | None, as_json: bool) -> None:
    """Show all."""
    print_list("Readers", act(data, lambda found: found.readers(tenant)), as_json)


@command.command()
@click.argument("name")
@click.option("--tenant", required=True, help="Whose rows it reads.")
@data_option
@json_option
def create(name: str, tenant: str, data: Path | None, as_json: bool) -> None:
    """Make one; its password is printed once."""
    made = act(data, lambda found: found.create_reader(tenant, name))
    print_made(as_json, login=made.role, password=made.password)


@command.command()
@click.argument("name")
@click.option("--tenant", required=True)
@data_option
def drop(name: str, tenant: str, data: Path | None) -> None:
    """Withdraw one and end its connections."""
    act(data, lambda found: found.drop_reader(tenant, name))
    click.echo(f"{name} reads nothing of {tenant} any more")
