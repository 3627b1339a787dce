"""`caudal migrate`: bring a database up to this version."""

from __future__ import annotations

import asyncio
import os

import click

from caudal.cli._tools import json_option, print_json
from caudal.core import logs
from caudal.core.db import DatabaseSettings
from caudal.core.migrate import migrate
from caudal.core.settings import load


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Bring the database that DATABASE_URL names up to this version; safe to run twice, or at once."""
    url = load(DatabaseSettings, os.environ).database_url
    if not url:
        raise click.UsageError("DATABASE_URL is not set.")
    logs.configure(level="warning")
    done = asyncio.run(migrate(url))
    if as_json:
        print_json({"migrated": done})
        return
    click.echo(f"migrated: {', '.join(done)}" if done else "nothing to do")
