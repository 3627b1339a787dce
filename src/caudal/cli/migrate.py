"""`caudal migrate`: bring a database up to this version."""

from __future__ import annotations

import asyncio
import os

import click

from caudal.core.db import DatabaseSettings
from caudal.core.migrate import migrate
from caudal.core.settings import load


@click.command()
def command() -> None:
    """Bring the database that DATABASE_URL names up to this version; safe to run twice, or at once."""
    url = load(DatabaseSettings, os.environ).database_url
    if not url:
        raise click.UsageError("DATABASE_URL is not set.")
    done = asyncio.run(migrate(url))
    click.echo(f"migrated: {', '.join(done)}" if done else "nothing to do")
