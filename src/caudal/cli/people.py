"""`caudal people`: who belongs to which tenant, as what."""

from __future__ import annotations

from pathlib import Path

import click

from caudal.cli._tools import data_option, json_option, print_list, print_made
from caudal.cli.tenant import act
from caudal.registry.permissions import Role

ROLE = click.Choice([str(role) for role in Role])


@click.group()
def command() -> None:
    """People: roles and passwords, also when nobody can sign in. For who has the installation's database."""


@command.command("list")
@click.option("--tenant", help="Of this tenant alone.")
@data_option
@json_option
def list_people(tenant: str | None, data: Path | None, as_json: bool) -> None:
    """Show who belongs where."""
    print_list("People", act(data, lambda found: found.people(tenant)), as_json)


@command.command()
@click.argument("login")
@click.option("--tenant", required=True, help="Where they belong from now on.")
@click.option("--role", type=ROLE, default="viewer", show_default=True)
@data_option
@json_option
def add(login: str, tenant: str, role: str, data: Path | None, as_json: bool) -> None:
    """Add somebody by user name or e-mail. A new person's password is printed once."""
    password = act(data, lambda found: found.add_person(login, tenant, Role(role)))
    print_made(as_json, login=login, role=role, tenant=tenant, password=password)


@command.command("role")
@click.argument("login")
@click.argument("role", type=ROLE)
@click.option("--tenant", required=True)
@data_option
def set_role(login: str, role: str, tenant: str, data: Path | None) -> None:
    """Give somebody a role in a tenant: `caudal people role ana owner --tenant acme`."""
    act(data, lambda found: found.set_role(login, tenant, Role(role)))
    click.echo(f"{login} is {role} of {tenant}")


@command.command()
@click.argument("login")
@click.option("--tenant", required=True)
@data_option
def remove(login: str, tenant: str, data: Path | None) -> None:
    """Take somebody out of a tenant."""
    act(data, lambda found: found.set_role(login, tenant, None))
    click.echo(f"{login} is out of {tenant}")


@command.command("reset-password")
@click.argument("login")
@data_option
@json_option
def reset_password(login: str, data: Path | None, as_json: bool) -> None:
    """Give somebody a new password, printed once; it ends their sessions and a lock-out."""
    print_made(as_json, password=act(data, lambda found: found.reset_password(login)))
