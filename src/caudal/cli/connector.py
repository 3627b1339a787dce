"""`caudal connector`: run a connector, set up tenants' accounts at providers."""

from __future__ import annotations

import asyncio
import sys

import click

from caudal.app.process import run_process


@click.group()
def command() -> None:
    """Reach people through WhatsApp, Instagram and what Apprise knows."""


@command.command()
@click.argument("name")
def run(name: str) -> None:
    """Run the connector NAME: whatsapp, instagram or apprise."""
    from caudal.app import connector
    from caudal.messaging import connectors

    if name not in connectors.names():
        raise click.BadParameter(f"there are {', '.join(connectors.names())}", param_hint="NAME")
    sys.exit(run_process(connector.starter(name), grace=35))


@command.command()
@click.option("--tenant", required=True)
@click.option("--channel", required=True, help="whatsapp, instagram, or a name of yours for an Apprise URL.")
@click.option("--account", required=True, help="The provider's id: phone_number_id, Instagram's account id.")
@click.option("--name", default="")
@click.option("--per-second", type=float, help="Messages a second, where the provider granted more.")
@click.option("--template", help="Template to use outside the 24-hour window: name, or name:language.")
def add(
    tenant: str, channel: str, account: str, name: str, per_second: float | None, template: str | None
) -> None:
    """Set up an account. Its secrets are asked for, or read from standard input, one a line."""
    from caudal.app import accounts
    from caudal.messaging.accounts import NewAccount, connector_of
    from caudal.messaging.provider import Template

    new = NewAccount(channel=channel, provider_account=account, name=name, per_second=per_second)
    if template:
        word, _, language = template.partition(":")
        new.template = Template(name=word, language=language or "en")
    asked = ["url"] if connector_of(channel) == "apprise" else ["token", "app_secret", "verify_token"]
    for field in asked:
        if sys.stdin.isatty():
            setattr(new, field, click.prompt(field.replace("_", " "), hide_input=True))
        else:
            setattr(new, field, sys.stdin.readline().strip())
    made = asyncio.run(accounts.add_account(tenant, new))
    click.echo(f"{made.channel} {made.provider_account} is set up.")
    if made.webhook_path:
        click.echo(f"Webhook: PUBLIC_URL{made.webhook_path}")


@command.command("list")
@click.option("--tenant", required=True)
def list_(tenant: str) -> None:
    """Show a tenant's accounts, without their secrets."""
    from caudal.app import accounts

    for made in asyncio.run(accounts.list_accounts(tenant)):
        state = made.problem or ("enabled" if made.enabled else "disabled")
        click.echo(f"{made.id}\t{made.channel}\t{made.provider_account}\t{made.webhook_path or ''}\t{state}")
