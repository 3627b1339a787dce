"""The command `caudal`: one module a command group in this folder, found by name, imported when asked for.

A module exposes `command`, a click command or group. No logic lives here: modules read arguments, call a
composition root or a service, and print.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import click

from caudal.core.errors import CaudalError


class _Groups(click.Group):
    """Commands by file name, `dead_letters.py` being `dead-letters`; none is imported before it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.group(cls=_Groups, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="caudal")
def root() -> None:
    """Telemetry in, messages out, and the loop between them."""


def main() -> None:
    """Entry point. An error that we raised on purpose is one sentence on stderr and exit status 2.

    So is a database that is away or wrong, wherever it shows. Anything else is a defect, and is shown whole.
    """
    try:
        root()
    except CaudalError as error:
        click.echo(f"caudal: {error.sentence}", err=True)
        sys.exit(2)
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        click.echo(f"caudal: {sentence}", err=True)
        sys.exit(2)


def _sentence(error: Exception) -> str | None:
    import asyncpg

    from caudal.core.db import explain

    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError | TimeoutError):
        return explain(error)
    if isinstance(error, OSError):
        return f"{error}."
    return None
