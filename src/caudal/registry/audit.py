"""Who did what: one row in the transaction that does it, so that neither is there without the other."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import structlog

from caudal.registry.principal import Principal


class Entry(msgspec.Struct, frozen=True):
    """One deed. `detail` never holds a secret or what people wrote to each other."""

    id: int
    at: datetime
    actor: str
    actor_name: str
    action: str
    target: str
    detail: dict[str, Any]
    request_id: str
    address: str


async def record(
    connection: Any, principal: Principal, action: str, target: str = "", **detail: object
) -> None:
    """Write down that `principal` did `action` to `target`, in `connection`'s tenant transaction.

    `action` is `things.verb` in the past tense (`device.claimed`), `target` what it was done to
    (`device:42`), `detail` what else a reader wants to know.
    """
    context = structlog.contextvars.get_contextvars()
    await connection.execute(
        "insert into caudal.audit(tenant_id, actor, actor_name, action, target, detail, request_id, address) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8)",
        principal.tenant_id,
        principal.actor,
        principal.name,
        action,
        target,
        detail,
        context.get("request_id", ""),
        context.get("address", ""),
    )


async def entries(
    connection: Any,
    *,
    limit: int,
    before: int | None = None,
    action: str | None = None,
    actor: str | None = None,
) -> list[Any]:
    """Up to `limit` rows of the transaction's tenant, newest first, below id `before`."""
    rows: list[Any] = await connection.fetch(
        """
        select id, at, actor, actor_name, action, target, detail, request_id, address from caudal.audit
        where ($1::bigint is null or id < $1) and ($2::text is null or action = $2)
          and ($3::text is null or actor = $3)
        order by id desc limit $4
        """,
        before,
        action,
        actor,
        limit,
    )
    return rows


async def by_operator(connection: Any, tenant: int, action: str, target: str = "", **detail: object) -> None:
    """Write down what the installation's administrator did to `tenant` (its number), outside of the API."""
    await connection.execute(
        "insert into caudal.audit(tenant_id, actor, actor_name, action, target, detail)"
        " values ($1, 'operator', 'operator', $2, $3, $4::text::jsonb)",
        tenant,
        action,
        target,
        msgspec.json.encode(detail).decode(),
    )
