"""The ledger: what was received, what became of it, and whether that is what the tables hold.

Functions take a connection that may read schema `caudal` whole (an administrator's, or ingest's).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec

SUMS = """
select l.day, coalesce(t.name, '') as tenant, sum(l.messages)::bigint as messages,
       sum(l.received)::bigint as received, sum(l.stored)::bigint as stored,
       sum(l.duplicates)::bigint as duplicates, sum(l.dead)::bigint as dead, sum(l.held)::bigint as held,
       sum(l.empty)::bigint as empty
from caudal.ledger l left join caudal.tenant t on t.id = l.tenant_id
where ($1::text is null or t.name = $1) and ($2::date is null or l.day >= $2)
  and ($3::date is null or l.day <= $3)
group by l.day, t.name order by l.day, t.name nulls first
"""

COUNTED = """
with tenants as (
  select tenant_id, sum(stored) as stored, sum(dead) as dead, sum(held) as held from caudal.ledger group by 1
), expired as (
  select tenant_id, sum(parts) filter (where kind = 'sample') as sample,
         sum(parts) filter (where kind = 'dead_letter') as dead_letter from caudal.expired group by 1
), ack as (select tenant_id, count(*) as n from caudal.ack group by 1
), event as (select tenant_id, count(*) as n from caudal.event group by 1
), dead as (
  -- A replayed letter counts where it went; records of the message log are no telemetry.
  select coalesce(tenant_id, 0) as tenant_id, sum(items) as n from caudal.dead_letter
  where status <> 'replayed' and format is distinct from 'log' group by 1
), held as (select tenant_id, sum(items) as n from caudal.held_message group by 1
), everyone as (
  select tenant_id from tenants union select tenant_id from ack union select tenant_id from event
  union select tenant_id from dead union select tenant_id from held
)
select e.tenant_id, coalesce(t.name, '') as tenant,
       coalesce(l.stored, 0)::bigint as stored, coalesce(l.dead, 0)::bigint as dead,
       coalesce(l.held, 0)::bigint as held,
       (coalesce(ack.n, 0) + coalesce(event.n, 0) + coalesce(x.sample, 0))::bigint as other_rows,
       (coalesce(dead.n, 0) + coalesce(x.dead_letter, 0))::bigint as dead_rows,
       coalesce(held.n, 0)::bigint as held_rows
from everyone e left join caudal.tenant t on t.id = e.tenant_id
left join tenants l using (tenant_id) left join expired x using (tenant_id)
left join ack using (tenant_id) left join event using (tenant_id)
left join dead using (tenant_id) left join held using (tenant_id)
order by t.name nulls first
"""

PARTITIONS = """
select coalesce((select array_agg(inhrelid::regclass::text order by inhrelid) from pg_inherits
                 where inhparent = c.oid and c.relkind = 'p'), array['caudal.sample'])
from pg_class c where c.oid = 'caudal.sample'::regclass
"""


class Line(msgspec.Struct):
    """A day (UTC, of the commit) of a tenant ("" where nobody knows whose it was), all writers together."""

    day: date
    tenant: str
    messages: int
    received: int
    stored: int
    duplicates: int
    dead: int
    held: int
    empty: int
    agrees: bool


class Check(msgspec.Struct):
    """One sum of a tenant's ledger held against the rows there are, with those that have expired."""

    tenant: str
    what: str
    """stored, dead or held."""
    ledger: int
    counted: int

    @property
    def agrees(self) -> bool:
        """Whether the two are the same number."""
        return self.ledger == self.counted


async def sums(
    connection: Any, *, tenant: str | None = None, since: date | None = None, until: date | None = None
) -> list[Line]:
    """The ledger by day and tenant; `since` and `until` are days, both taken in."""
    lines = []
    for row in await connection.fetch(SUMS, tenant, since, until):
        parts = row["stored"] + row["duplicates"] + row["dead"] + row["held"] + row["empty"]
        lines.append(Line(**row, agrees=row["received"] == parts))
    return lines


async def knows(connection: Any, tenant: str) -> bool:
    """Whether there is a tenant of that name."""
    return bool(await connection.fetchval("select exists(select from caudal.tenant where name = $1)", tenant))


async def verify(
    connection: Any, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> list[Check]:
    """Count every row there is and hold it against the ledger. Reads the whole of `caudal.sample`.

    All in one snapshot, so it may run while data comes in. `progress` hears partitions done, and of how many.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        names = {
            row["id"]: row["name"] for row in await connection.fetch("select id, name from caudal.tenant")
        }
        rows = await connection.fetch(COUNTED)
        partitions = await connection.fetchval(PARTITIONS)
        samples: dict[int, int] = {}
        for number, partition in enumerate(partitions):
            progress(number, len(partitions))
            counts = await connection.fetch(
                # The name comes from the catalogue, quoted by it.
                f"select coalesce(r.tenant_id, 0) as tenant_id, sum(n)::bigint as n from"
                f" (select series, count(*) as n from {partition} group by 1) s"
                " left join caudal.series r on r.id = s.series group by 1"
            )
            for row in counts:
                samples[row["tenant_id"]] = samples.get(row["tenant_id"], 0) + row["n"]
        progress(len(partitions), len(partitions))
    checks = []
    for row in rows:
        counted = row["other_rows"] + samples.pop(row["tenant_id"], 0)
        checks.append(Check(row["tenant"], "stored", row["stored"], counted))
        checks.append(Check(row["tenant"], "dead", row["dead"], row["dead_rows"]))
        checks.append(Check(row["tenant"], "held", row["held"], row["held_rows"]))
    checks.extend(Check(names.get(tenant, ""), "stored", 0, count) for tenant, count in samples.items())
    return checks
