"""`caudal trace`: what became of a message."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from caudal.app.tools import Installation, connected
from caudal.cli._tools import MOMENT, data_option, json_option, print_json, print_table, run
from caudal.telemetry import trace


@click.command()
@data_option
@click.option("--topic", help="The topic it came on.")
@click.option("--tenant", help="With --device, in place of a topic.")
@click.option("--device", help="The device, as on the topic.")
@click.option("--since", type=MOMENT, default="1h", show_default=True, help="Received from then on.")
@click.option("--until", type=MOMENT, help="Received before.  [default: now]")
@click.option("--payload", type=click.File("rb"), help="File with its bytes (- is stdin), whenever it came.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True)
@json_option
def command(
    data: Path | None, topic: str | None, tenant: str | None, device: str | None, since: datetime,
    until: datetime | None, payload: Any, limit: int, as_json: bool,
) -> None:  # fmt: skip
    """Say what became of a message: its rows, its dead letters, and when they were received and committed.

    Exits with 1 when nothing of it is there.
    """
    if payload is not None and topic is None:
        raise click.UsageError("--payload needs the --topic that it came on.")

    async def work() -> trace.Trace:
        installation = Installation(data)
        scheme = installation.scheme
        async with connected(installation) as connection:
            if payload is not None:
                return await trace.by_payload(connection, scheme, topic or "", payload.read())
            return await trace.by_time(
                connection, scheme, topic=topic, tenant=tenant, device=device, since=since,
                until=until or datetime.now(UTC), limit=limit,
            )  # fmt: skip

    found = run(work())
    if as_json:
        print_json(found)
    else:
        _print(found)
    sys.exit(0 if found.rows or found.letters or found.held or found.others else 1)


def _print(found: trace.Trace) -> None:
    if found.rows:
        print_table(
            "Rows", ("device", "point", "measured", "value", "received", "committed", "same"),
            [[r.device, r.point, r.ts, r.value, r.received, r.committed, "" if r.same is None else r.same]
             for r in found.rows],
        )  # fmt: skip
    for title, rows in (
        ("Acks and events", found.others), ("Dead letters", found.letters), ("Held", found.held),
        ("Ledger", found.ledger),
    ):  # fmt: skip
        if rows:
            print_table(title, list(rows[0]), [list(row.values()) for row in rows])
    if found.missing:
        print_table("Not there", ("sample",), [[name] for name in found.missing])
    click.echo(found.verdict)
