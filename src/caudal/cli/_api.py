"""What commands share that speak to the API as somebody: where it is, and with which key."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from caudal.app.tools import Installation
from caudal.cli._tools import data_option, run
from caudal.client import Client
from caudal.core.errors import SettingsError

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def api_options(command: Command) -> Command:
    """`--url`, `--key` and `--data`: which API, and as whom."""
    command = click.option("--url", help="The API.  [default: API_URL, else that of --data]")(command)
    command = click.option(
        "--key", help="An API key or access token; better in CAUDAL_API_KEY, where `ps` does not show it."
    )(command)
    return data_option(command)


def call(url: str | None, key: str | None, data: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do `work` with a client. Raises SettingsError without a key, and what the API refuses."""
    token = key or os.environ.get("CAUDAL_API_KEY")
    if not token:
        raise SettingsError("Set CAUDAL_API_KEY to an API key of your tenant (console: People, Keys).")

    async def main() -> T:
        async with Client(url or Installation(data).http_url, token=token, timeout=120) as client:
            return await work(client)

    return run(main())
