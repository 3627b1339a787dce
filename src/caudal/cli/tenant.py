"""`caudal tenant`: tenants and what they may use."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import UNSET

from caudal.app.administration import Administrator, administrator
from caudal.app.tools import Installation
from caudal.cli._tools import data_option, json_option, print_json, print_made, print_table, run
from caudal.registry.administration import Quota, TenantLine

T = TypeVar("T")


def act(data: Path | None, work: Callable[[Administrator], Awaitable[T]]) -> T:
    """Do `work` as the administrator of the installation."""

    async def main() -> T:
        async with administrator(Installation(data)) as found:
            return await work(found)

    return run(main())


class Amount(click.ParamType[Any]):
    """A whole number, with k, M, G, T or Ki, Mi, Gi, Ti behind it; `none` takes a limit away."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or value is UNSET or isinstance(value, int):
            return value
        if value == "none":
            return None
        found = re.fullmatch(r"(\d{1,18})(?:([kKMGT])(i?)B?|B)?", str(value))
        if found is None:
            self.fail(f"{value!r} is no number like 500, 20k, 10G or 10GiB, nor `none`", param, ctx)
        size = 1024 if found[3] else 1000
        return int(found[1]) * size ** (" KMGT".index(found[2].upper()) if found[2] else 0)


AMOUNT = Amount()


def show(lines: list[TenantLine], as_json: bool) -> None:
    """Tenants as a table, or as JSON."""
    if as_json:
        print_json(lines)
        return
    print_table(
        "Tenants; limits a second, - is none",
        ("name", "status", "unknown devices", "people", "devices", "series", "requests", "messages", "points",
         "storage, bytes"),
        [
            (
                line.name, line.status, line.unknown_devices, line.people, line.devices,
                f"{line.series} of {line.max_series}", line.requests_per_second or "-",
                line.messages_per_second or "-", line.points_per_second or "-",
                f"{'?' if line.used_bytes is None else line.used_bytes} of {line.storage_bytes or '-'}"
                + (" FULL" if line.full else ""),
            )
            for line in lines
        ],
    )  # fmt: skip


@click.group()
def command() -> None:
    """Tenants: make, limit, suspend. For who has the installation's database."""


@command.command("list")
@data_option
@json_option
def list_tenants(data: Path | None, as_json: bool) -> None:
    """Show all, with what they have and may."""
    show(act(data, lambda found: found.tenants()), as_json)


@command.command()
@click.argument("name")
@click.option("--display-name", help="The name on screens.")
@click.option("--owner", metavar="EMAIL", help="Its first owner; a new person's password is printed once.")
@data_option
@json_option
def create(name: str, display_name: str | None, owner: str | None, data: Path | None, as_json: bool) -> None:
    """Make one. NAME is what stands on topics."""
    password = act(data, lambda found: found.create_tenant(name, display_name, owner))
    print_made(as_json, tenant=name, owner=owner, password=password)


@command.command()
@click.argument("name")
@click.option("--requests", type=AMOUNT, default=UNSET, help="HTTP requests a second.", show_default=False)
@click.option("--messages", type=AMOUNT, default=UNSET, help="Messages a second.", show_default=False)
@click.option("--points", type=AMOUNT, default=UNSET, help="Samples a second.", show_default=False)
@click.option("--storage", type=AMOUNT, default=UNSET, help="Bytes kept, such as 10GiB.", show_default=False)
@click.option("--series", type=AMOUNT, default=UNSET, help="Series at most.", show_default=False)
@data_option
@json_option
def quota(
    name: str, requests: Any, messages: Any, points: Any, storage: Any, series: Any, data: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show or change what one may use; `none` takes a limit away. In force within seconds."""
    if series is None:
        raise click.BadParameter("there is always a limit of series", param_hint="--series")
    given = Quota(requests, messages, points, storage, series)
    if given == Quota():
        show(act(data, lambda found: found.tenants(name)), as_json)
    else:
        show([act(data, lambda found: found.set_quota(name, given))], as_json)


@command.command()
@click.argument("name")
@data_option
def suspend(name: str, data: Path | None) -> None:
    """Shut one out until `resume`: nobody signs in, no device comes in, nothing is read from it."""
    act(data, lambda found: found.set_status(name, "suspended"))
    click.echo(f"{name} is suspended; `caudal tenant resume {name}` lets it work again")


@command.command()
@click.argument("name")
@data_option
def resume(name: str, data: Path | None) -> None:
    """Let a suspended one work again."""
    act(data, lambda found: found.set_status(name, "active"))
    click.echo(f"{name} works again")


@command.command("unknown-devices")
@click.argument("name")
@click.argument("policy", type=click.Choice(["register", "hold", "refuse"]))
@data_option
def unknown_devices(name: str, policy: Any, data: Path | None) -> None:
    """Say what happens to devices that nobody registered."""
    act(data, lambda found: found.set_policy(name, policy))
    click.echo(f"unknown devices of {name}: {policy}")
