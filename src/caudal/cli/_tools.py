"""What the tools share: how to name an installation, how to print, how to run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from caudal.core import logs

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def data_option(command: Command) -> Command:
    """`--data DIR`: the directory of a `caudal up`."""
    return click.option(
        "--data", type=click.Path(file_okay=False, path_type=Path),
        help="Directory of a `caudal up` that is running.  [default: DATABASE_URL or MQTT_URL, else ./data]",
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """`--json`: for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


class Moment(click.ParamType[datetime]):
    """ISO 8601 (UTC where it has no offset), or how long ago: `15m`, `2h`, `3d`."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
        text = str(value)
        try:
            if text[:-1].isdecimal() and text[-1] in units:
                return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
        except OverflowError:
            self.fail(f"{text!r} is before there were calendars", param, ctx)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither ISO 8601 nor like 15m, 2h or 3d", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


MOMENT = Moment()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a tool's work; it says what matters itself, so only warnings are logged."""
    logs.configure(level="warning")
    return asyncio.run(work)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_made(as_json: bool, **fields: str | None) -> None:
    """What was made or changed, a name and a value a line; None is left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    if as_json:
        print_json(given)
        return
    for name, value in given.items():
        click.echo(f"{name} {value}")


def print_list(title: str, lines: Sequence[msgspec.Struct], as_json: bool) -> None:
    """Structs of one kind as a table, a column for each field, or as JSON."""
    if as_json:
        print_json(lines)
        return
    if not lines:
        click.echo(f"{title}: none")
        return
    names = type(lines[0]).__struct_fields__
    heads = [name.replace("_", " ") for name in names]
    print_table(title, heads, [[getattr(line, name) for name in names] for line in lines])


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; what people and devices wrote is shown as text, whatever it holds."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    # A pipe or a file has no width that anybody looks at.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    # Control characters of a payload must not reach the terminal.
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(cell))


printable = _shown


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; hears done and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
