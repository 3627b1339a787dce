"""`caudal reader`: logins of the database that read one tenant's views."""

from __future__ import annotations

from pathlib import Path

import click

from caudal.cli._tools import data_option, json_option, print_json, print_table
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
    lines = act(data, lambda found: found.readers(tenant))
    if as_json:
        print_json(lines)
        return
    print_table("Readers", ("login", "tenant", "made"), [(r.role, r.tenant, r.created_at) for r in lines])


@command.command()
@click.argument("name")
@click.option("--tenant", required=True, help="Whose rows it reads.")
@data_option
def create(name: str, tenant: str, data: Path | None) -> None:
    """Make one; its password is printed once."""
    made = act(data, lambda found: found.create_reader(tenant, name))
    click.echo(f"login {made.role}\npassword {made.password}")


@command.command()
@click.argument("name")
@click.option("--tenant", required=True)
@data_option
def drop(name: str, tenant: str, data: Path | None) -> None:
    """Withdraw one and end its connections."""
    act(data, lambda found: found.drop_reader(tenant, name))
