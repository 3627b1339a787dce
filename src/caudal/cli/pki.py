"""`caudal pki`: the certificate authority, from the operator's side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from rich.console import Console
from rich.table import Table

from caudal.app.pki import Operator, operator
from caudal.cli._tools import data_option
from caudal.registry.pki.registrations import Approval
from caudal.registry.pki.revocation import Reason

T = TypeVar("T")
FOLDER = click.Path(file_okay=False, path_type=Path)


def run(act: Callable[[Operator], Awaitable[T]]) -> T:
    """Do `act` as the operator that the environment names."""

    data: Path | None = click.get_current_context().obj

    async def main() -> T:
        async with operator(os.environ, data) as found:
            return await act(found)

    return asyncio.run(main())


def show(rows: list[Any], *columns: str) -> None:
    """Structs as a table."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(getattr(row, column) or "") for column in columns))
    Console().print(table)


def save(folder: Path, **files: str) -> None:
    """Write files into `folder`, keys for their owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name.replace('_', '.')}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)
        if "key" not in name:
            path.chmod(0o644)
        click.echo(str(path))


@click.group()
@data_option
@click.pass_context
def command(context: click.Context, data: Path | None) -> None:
    """Certificates: the authority, who asks for one, who has one.

    Finds the installation by --data, else by DATABASE_URL and CAUDAL_MASTER_KEY, else in ./data.
    """
    context.obj = data


@command.command()
def init() -> None:
    """Make the authority, once."""
    click.echo(run(lambda found: found.init()), nl=False)


@command.command()
def authority() -> None:
    """Print the authority's certificate."""
    click.echo(run(lambda found: found.authority()), nl=False)


@command.command()
@click.option("--der", is_flag=True, help="DER instead of PEM.")
def crl(der: bool) -> None:
    """Print the newest revocation list."""
    click.echo(run(lambda found: found.revocation_list(pem=not der)), nl=False)


@command.command()
@click.argument("hosts", nargs=-1, required=True)
@click.option("--days", default=365, show_default=True)
@click.option("--out", type=FOLDER, default=Path(), help="Where server.pem and server.key.pem go.")
def server(hosts: tuple[str, ...], days: int, out: Path) -> None:
    """Make a key and certificate for a TLS listener at HOSTS (names and addresses)."""
    made = run(lambda found: found.server(list(hosts), days))
    save(out, server=made.made.pem, server_key=made.key_pem)


@command.group()
def bootstrap() -> None:
    """Bootstrap certificates, shared by a batch of new gateways."""


@bootstrap.command("new")
@click.argument("label")
@click.option("--tenant", help="Whose people approve its gateways; the operator without.")
@click.option("--out", type=FOLDER, default=Path(), help="Where its files go.")
def bootstrap_new(label: str, tenant: str | None, out: Path) -> None:
    """Make one; its key is written once."""
    made = run(lambda found: found.new_bootstrap(label, tenant))
    save(out, bootstrap=made.certificate_pem, bootstrap_key=made.key_pem, authority=made.authority_pem)
    click.echo(f"fingerprint {made.bootstrap.fingerprint}")


@bootstrap.command("list")
def bootstrap_list() -> None:
    """Show all."""
    show(run(lambda found: found.bootstraps()), "id", "label", "fingerprint", "not_after", "revoked_at")


@bootstrap.command("revoke")
@click.argument("number", type=int)
@click.option("--reason", type=click.Choice(get_args(Reason)), default="unspecified")
def bootstrap_revoke(number: int, reason: str) -> None:
    """End one."""
    run(lambda found: found.revoke_bootstrap(number, reason))


@command.command()
def pending() -> None:
    """Show the registrations that wait for a decision."""
    show(
        run(lambda found: found.pending()),
        "id",
        "mac",
        "serial",
        "model",
        "firmware",
        "address",
        "created_at",
    )


@command.command()
@click.argument("registration", type=int)
@click.option("--tenant", required=True, help="The account it belongs to.")
@click.option("--code", required=True, help="Its code in that account.")
@click.option("--name", default="", help="Its name.")
def approve(registration: int, tenant: str, code: str, name: str) -> None:
    """Take a gateway in and sign its certificate."""
    made = run(lambda found: found.approve(registration, tenant, Approval(code, name)))
    click.echo(
        f"{made.gateway.mac} is {made.gateway.code} of {tenant}; certificate {made.certificate.serial}"
    )


@command.command()
@click.argument("registration", type=int)
@click.option("--reason", default="", help="Why; the gateway hears it.")
def reject(registration: int, reason: str) -> None:
    """Refuse a gateway."""
    run(lambda found: found.reject(registration, reason))


@command.command("list")
@click.option("--search", help="Part of a MAC, serial or fingerprint.")
def list_certificates(search: str | None) -> None:
    """Show certificates."""
    rows = run(lambda found: found.certificates(search))
    show(rows, "id", "mac", "serial", "kind", "not_after", "revoked_at", "reason")


@command.command()
@click.argument("mac")
@click.option("--out", type=FOLDER, default=Path(), help="Where its files go.")
def generate(mac: str, out: Path) -> None:
    """Make a key and certificate to burn into a gateway; the key is written once and kept nowhere."""
    made = run(lambda found: found.generate(mac))
    save(out, certificate=made.certificate_pem, certificate_key=made.key_pem, authority=made.authority_pem)


@command.command()
@click.argument("certificate", type=int)
@click.option("--reason", type=click.Choice(get_args(Reason)), default="unspecified", show_default=True)
def revoke(certificate: int, reason: str) -> None:
    """Revoke a certificate for good."""
    made = run(lambda found: found.revoke(certificate, reason))
    click.echo(f"{made.mac}: {made.serial} revoked, {made.reason}")


@command.command()
def renew() -> None:
    """Ask gateways whose certificates end soonest to renew them, as many as may today."""
    click.echo(f"{run(lambda found: found.invite())} gateways asked")


@command.command("mqtt-user")
@click.argument("name")
@click.argument("role", type=click.Choice(["backend", "dashboard", "administrator"]))
@click.option("--tenant", help="Bound to this tenant's topics; all tenants without.")
def mqtt_user(name: str, role: Any, tenant: str | None) -> None:
    """Make an MQTT user that is no device, or give it a new password; prints the password once."""
    click.echo(run(lambda found: found.mqtt_user(name, role, tenant)))
