"""`caudal ledger`: what was received and what became of it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click

from caudal.app.tools import Installation, connected
from caudal.cli._tools import MOMENT, data_option, json_option, print_json, print_table, progress, run
from caudal.core.errors import NotFound
from caudal.telemetry import ledger


@click.command()
@data_option
@click.option("--tenant", help="This tenant alone.")
@click.option("--since", type=MOMENT, help="From this day (UTC, of the commit) on: 2025-10-07, or 3d.")
@click.option("--until", type=MOMENT, help="Up to this day, taken in.")
@click.option("--verify", is_flag=True, help="Count every row there is and hold it against the sums.")
@json_option
def command(
    data: Path | None, tenant: str | None, since: datetime | None, until: datetime | None, verify: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show what was received and what became of it: received = stored + duplicates + dead + held + empty.

    Exits with 1 when the sums do not agree, among themselves or (--verify) with the tables.
    """

    async def work() -> tuple[list[ledger.Line], list[ledger.Check]]:
        async with connected(Installation(data)) as connection:
            lines = await ledger.sums(
                connection, tenant=tenant, since=since and since.date(), until=until and until.date()
            )
            if tenant is not None and not lines and not await ledger.knows(connection, tenant):
                raise NotFound(f"There is no tenant {tenant!r}. `caudal ledger` alone shows those there are.")
            if not verify:
                return lines, []
            with progress("Counting") as hear:
                checks = await ledger.verify(connection, hear)
            return lines, [check for check in checks if tenant is None or check.tenant == tenant]

    lines, checks = run(work())
    agrees = all(line.agrees for line in lines) and all(check.agrees for check in checks)
    if as_json:
        shown = [{"agrees": check.agrees, **_fields(check)} for check in checks]
        print_json({"agrees": agrees, "days": lines, "verified": shown if verify else None})
    else:
        _print(lines, checks, verify)
    if not agrees:
        click.echo("The ledger does not agree. Keep the database as it is, and report this.", err=True)
    sys.exit(0 if agrees else 1)


NAMES = ("messages", "received", "stored", "duplicates", "dead", "held", "empty")


def _fields(check: ledger.Check) -> dict[str, object]:
    return {name: getattr(check, name) for name in check.__struct_fields__}


def _print(lines: list[ledger.Line], checks: list[ledger.Check], verify: bool) -> None:
    rows: list[list[object]] = [
        [line.day, line.tenant or "(nobody's)", *(getattr(line, name) for name in NAMES), _yes(line.agrees)]
        for line in lines
    ]
    rows.append(["all", "", *(sum(getattr(line, name) for line in lines) for name in NAMES), ""])
    print_table("Ledger", ("day", "tenant", *NAMES, "agrees"), rows)
    if verify:
        print_table(
            "Held against the tables", ("tenant", "what", "ledger", "counted", "agrees"),
            [[c.tenant or "(nobody's)", c.what, c.ledger, c.counted, _yes(c.agrees)] for c in checks],
        )  # fmt: skip


def _yes(agrees: bool) -> str:
    return "yes" if agrees else "NO"
