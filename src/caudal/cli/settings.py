"""`caudal settings`: every setting, as docs/settings.md has them."""

from __future__ import annotations

import click

from caudal.app.settings import document


@click.command()
def command() -> None:
    """Print every setting with its default and meaning (Markdown)."""
    click.echo(document(), nl=False)
