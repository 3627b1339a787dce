"""Operations: does the ledger agree, does everything answer, where does something wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Response, get

from caudal.messaging.breaker_board import STALE
from caudal.registry.permissions import Action
from caudal.registry.settings import PeopleSettings
from caudal.telemetry import ledger
from caudal.web.console.view import View
from caudal.web.guards import requires
from caudal.web.health import Health
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"people_settings"})
DAYS = 14
PARTITIONS = 40

_DELIVERIES = """
select channel, state, count(*) as n from caudal.delivery
where created_at > now() - interval '7 days' and channel <> 'app' group by 1, 2 order by 1, 2
"""
_ACCOUNTS = """
select a.channel, a.name, a.provider_account, a.enabled, a.problem, a.problem_at,
       b.workers, b.open, b.trying, b.since
from caudal.channel_account a
cross join lateral (
  select count(*) as workers, count(*) filter (where state = 'open') as open,
         count(*) filter (where state = 'half_open') as trying,
         min(since) filter (where state <> 'closed') as since
  from caudal.breaker where account_id = a.id and at > now() - make_interval(secs => $1)) b
order by 1, 2
"""


@get("/operations", guards=[requires(Action.OPERATIONS_READ)])
async def operations(
    view: Given[View],
    door: Database,
    principal: Caller,
    health: Given[Health],
    people_settings: Given[PeopleSettings],
) -> Response[str]:
    """The page. What concerns the whole installation is shown to the tenant that runs it."""
    # Every tenant has operators; the installation's sizes and queues are the business of those of the first.
    whole = principal.tenant == people_settings.default_tenant
    async with door.read() as connection:
        lines = await ledger.sums(connection, since=datetime.now(UTC).date() - timedelta(days=DAYS))
        waiting = await connection.fetchrow(
            "select (select count(*) from caudal.dead_letter where status = 'open') as letters,"
            " (select count(*) from caudal.held_message) as held,"
            " (select count(*) from caudal.command where status in ('pending', 'sent')) as commands"
        )
        deliveries = await connection.fetch(_DELIVERIES)
        accounts = await connection.fetch(_ACCOUNTS, STALE) if view.may(Action.CONNECTORS_READ) else []
        installation: dict[str, Any] | None = (
            await connection.fetchval("select caudal.console_installation()") if whole else None
        )
    by_channel: dict[str, dict[str, int]] = {}
    for row in deliveries:
        by_channel.setdefault(row["channel"], {})[row["state"]] = row["n"]
    return view.page(
        "operations.html", section="operations", lines=list(reversed(lines)), waiting=waiting,
        by_channel=by_channel, accounts=accounts, installation=installation, report=await health.report(),
        agrees=all(line.agrees for line in lines), days=DAYS, most=PARTITIONS,
    )  # fmt: skip


ROUTES = [operations]
