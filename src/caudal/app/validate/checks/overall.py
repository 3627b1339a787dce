"""The ledger of everything above: received is what became of it, and that is what is there."""

from __future__ import annotations

from typing import Any, Final

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "telemetry"
NUMBER = 12
TITLE = "Overall: the ledger"

SUMS = """
select coalesce(sum(messages), 0)::bigint as messages, coalesce(sum(received), 0)::bigint as received,
  coalesce(sum(stored), 0)::bigint as stored, coalesce(sum(duplicates), 0)::bigint as duplicates,
  coalesce(sum(dead), 0)::bigint as dead, coalesce(sum(held), 0)::bigint as held,
  coalesce(sum(empty), 0)::bigint as empty
from caudal.ledger where tenant_id = $1
"""
THERE = """
select (select count(*) from ts_measure) + (select count(*) from caudal.ack where tenant_id = $1)
     + (select count(*) from caudal.event where tenant_id = $1) as stored,
  (select coalesce(sum(items), 0)::bigint from caudal.dead_letter
   where tenant_id = $1 and format is distinct from 'log') as dead
"""


async def run(context: Context, finding: Finding) -> None:
    number = context.ground.tenant_id

    async def both() -> tuple[Any, Any]:
        # One snapshot, as our tenant, so that the views count it alone.
        async with (
            context.ground.reader.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await connection.fetchrow(SUMS, number), await connection.fetchrow(THERE, number)

    sums, there = await context.eventually(
        both, lambda found: found[0]["messages"] >= context.acknowledged, 5.0
    )
    finding.measured |= dict(sums)
    finding.measured["acknowledged"] = context.acknowledged
    parts = sum(sums[name] for name in ("stored", "duplicates", "dead", "held", "empty"))
    finding.equal("Received, by the ledger", sums["received"], parts)
    finding.equal("Stored: ledger against rows", sums["stored"], there["stored"])
    finding.equal("Dead: ledger against letters", sums["dead"], there["dead"])
    finding.expect(
        sums["messages"] >= context.acknowledged,
        f"{context.acknowledged} messages were acknowledged, and the ledger knows of {sums['messages']}.",
    )
    finding.sentence = (
        f"{sums['received']} parts received: {sums['stored']} stored, {sums['duplicates']} duplicates,"
        f" {sums['dead']} dead; the tables agree."
    )
