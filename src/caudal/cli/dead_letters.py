"""`caudal dead-letters`: find, read, correct, put back, discard."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from caudal.app.tools import Installation, connected, own_pipeline
from caudal.cli._tools import (
    MOMENT,
    data_option,
    json_option,
    print_json,
    print_table,
    printable,
    progress,
    run,
)
from caudal.telemetry import dead_letters
from caudal.telemetry.dead_letters import Filter
from caudal.telemetry.replays import Replayed, replay

CONTEXT = 400
NUMBER = click.IntRange(1, 2**63 - 1)


@click.group()
def command() -> None:
    """Find, read, correct, put back or discard what could not be stored."""


def _filters(call: Any) -> Any:
    for option in (
        click.option("--until", type=MOMENT, help="Received before."),
        click.option("--since", type=MOMENT, help="Received from then on: ISO 8601, or 15m, 2h, 3d ago."),
        click.option("--cause", help="Cause, as `list --causes` shows it."),
        click.option("--topic", help="Topic; `*` stands for anything."),
        click.option("--tenant", help="Tenant, as on the topic."),
        click.option("--reason", help="Reason, such as `value`."),
    ):
        call = option(call)
    return call


@command.command("list")
@data_option
@_filters
@click.option("--status", type=click.Choice(["open", "replayed", "discarded", "all"]), default="open",
              show_default=True)  # fmt: skip
@click.option("--causes", is_flag=True, help="Group what is alike, the most frequent first.")
@click.option("--before", type=NUMBER, help="Go on where the page before ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@json_option
def list_(
    data: Path | None,
    status: str,
    causes: bool,
    before: int | None,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """List dead letters, the newest first."""
    wanted = Filter(**filters, status=None if status == "all" else status)  # type: ignore[arg-type]

    async def work() -> Any:
        async with connected(Installation(data)) as connection:
            if causes:
                return await dead_letters.causes(connection, wanted, limit=limit)
            return await dead_letters.find(connection, wanted, before=before, limit=limit)

    found = run(work())
    if as_json:
        print_json(found)
    elif causes:
        print_table(
            "Causes", ("cause", "letters", "devices", "reason", "for example", "last"),
            [[c.cause, c.letters, c.devices, c.reason, c.sentence, c.last] for c in found],
        )  # fmt: skip
        click.echo("Next: caudal dead-letters show NUMBER, or replay --cause CAUSE.")
    else:
        print_table(
            "Dead letters", ("number", "received", "topic", "reason", "sentence", "status"),
            [[i.id, i.received, i.topic, i.reason, i.sentence, i.status + (" (fixed)" if i.fixed else "")]
             for i in found.items],
        )  # fmt: skip
        if found.after is not None:
            click.echo(f"There are more: --before {found.after}")


@command.command()
@click.argument("number", type=NUMBER)
@data_option
@click.option("--raw", is_flag=True, help="Write the payload's bytes to stdout and nothing else.")
@json_option
def show(number: int, data: Path | None, raw: bool, as_json: bool) -> None:
    """Show one dead letter with the offending place marked."""

    async def work() -> dead_letters.Shown:
        async with connected(Installation(data)) as connection:
            return await dead_letters.show(connection, number)

    shown = run(work())
    if raw:
        sys.stdout.buffer.write(shown.payload)
    elif as_json:
        print_json({"text": shown.text, **{name: getattr(shown, name) for name in shown.__struct_fields__}})
    else:
        _print_letter(shown)


def _print_letter(shown: dead_letters.Shown) -> None:
    letter = shown.letter
    for name in ("id", "status", "topic", "reason", "sentence", "pointer", "received", "stored", "cause"):
        value = getattr(letter, name)
        if value not in (None, ""):
            click.echo(f"{name + ':':<10} {printable(value)}")
    if letter.outcome is not None:
        click.echo(f"{'outcome:':<10} {bytes(letter.outcome).decode()}")
    if shown.siblings:
        click.echo(f"{'with:':<10} {', '.join(map(str, shown.siblings))}, of the same message")
    start = shown.start if shown.start is not None else 0
    end = shown.end if shown.end is not None else 0
    first, last = max(0, start - CONTEXT), min(len(shown.payload), end + CONTEXT)
    text = Text("... " if first else "")
    text.append(_readable(shown.payload[first:start]))
    text.append(f">>>{_readable(shown.payload[start:end])}<<<" if end > start else "", style="bold red")
    text.append(_readable(shown.payload[end:last]))
    text.append(" ..." if last < len(shown.payload) else "")
    Console().print(f"payload ({letter.size} bytes):")
    Console().print(text)
    if shown.fixed_payload is not None:
        click.echo(f"corrected: {_readable(shown.fixed_payload[:2000])}")
    if shown.fixed_topic is not None:
        click.echo(f"corrected topic: {printable(shown.fixed_topic)}")
    if letter.status == "open":
        click.echo(
            f"Next: caudal dead-letters fix {letter.id} --payload FILE, replay {letter.id}, or discard."
        )


def _readable(raw: bytes) -> str:
    return printable(raw.decode(errors="backslashreplace"))


@command.command()
@click.argument("number", type=NUMBER)
@data_option
@click.option("--payload", type=click.File("rb"), help="File with the corrected payload; - is stdin.")
@click.option("--topic", help="The corrected topic.")
@json_option
def fix(number: int, data: Path | None, payload: Any, topic: str | None, as_json: bool) -> None:
    """Correct a message; the original stays beside it. `replay` then puts the corrected one back."""

    async def work() -> list[int]:
        content = payload.read() if payload is not None else None
        async with connected(Installation(data)) as connection, connection.transaction():
            return await dead_letters.fix(connection, number, payload=content, topic=topic, records=True)

    concerned = run(work())
    if as_json:
        print_json({"corrected": concerned})
        return
    click.echo(f"Corrected for {', '.join(map(str, concerned))}. Next: caudal dead-letters replay {number}.")


async def _chosen(
    installation: Installation, numbers: tuple[int, ...], everything: bool, filters: dict[str, Any]
) -> list[int]:
    named = any(value is not None for value in filters.values())
    if bool(numbers) == (named or everything):
        raise click.UsageError("Name letters by number, or by --cause and its like, or all with --all.")
    if numbers:
        return list(numbers)
    async with connected(installation) as connection:
        return await dead_letters.choose(connection, Filter(**filters))


@command.command("replay")
@click.argument("numbers", type=NUMBER, nargs=-1)
@data_option
@_filters
@click.option("--all", "everything", is_flag=True, help="All that are open.")
@json_option
def replay_(
    numbers: tuple[int, ...], data: Path | None, everything: bool, as_json: bool, **filters: Any
) -> None:
    """Put letters back through the whole path. What is refused again stays open; twice is no harm."""

    async def work() -> list[Replayed]:
        installation = Installation(data)
        chosen = await _chosen(installation, numbers, everything, filters)
        if not chosen:
            return []
        with progress("Putting back") as hear:
            async with own_pipeline(installation) as (pool, pipeline):
                return await replay(pool, pipeline, chosen, by=getpass.getuser(), progress=hear)

    results = run(work())
    if as_json:
        print_json(results)
    else:
        print_table(
            "Put back", ("number", "result", "stored", "duplicates", "dead", "held", "why"),
            [[r.id, r.result, r.stored, r.duplicates, r.dead, r.held, r.sentence] for r in results[:200]],
        )  # fmt: skip
        count = {name: sum(r.result == name for r in results) for name in ("replayed", "refused", "settled")}
        click.echo(", ".join(f"{number} {name}" for name, number in count.items()))
    sys.exit(1 if any(result.result == "refused" for result in results) else 0)


@command.command()
@click.argument("numbers", type=NUMBER, nargs=-1)
@data_option
@_filters
@click.option("--all", "everything", is_flag=True, help="All that are open.")
@json_option
def discard(
    numbers: tuple[int, ...], data: Path | None, everything: bool, as_json: bool, **filters: Any
) -> None:
    """Settle letters that nobody will put back. They stay readable until they expire."""

    async def work() -> int:
        installation = Installation(data)
        chosen = await _chosen(installation, numbers, everything, filters)
        async with connected(installation) as connection:
            return await dead_letters.discard(connection, chosen, by=getpass.getuser())

    count = run(work())
    if as_json:
        print_json({"discarded": count})
    else:
        click.echo(f"{count} discarded.")
