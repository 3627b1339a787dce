"""The board of breakers: what changed is there soon, what ended is gone, and nobody sees another's."""

from __future__ import annotations

from typing import Any

from caudal.core import db
from caudal.messaging.breaker_board import BreakerBoard
from caudal.messaging.limits import State
from caudal.registry.tenants import create_tenant


class Breakers:
    """States as a test sets them."""

    def __init__(self) -> None:
        self.present: dict[int, State] = {}

    def states(self) -> dict[int, State]:
        return self.present


async def test_a_board_shows_what_is(pool: Any, database_url: str) -> None:
    tenant = await create_tenant(pool, "ours")
    await create_tenant(pool, "theirs")
    number = await pool.fetchval(
        "insert into caudal.channel_account(tenant_id, channel, connector, provider_account, secrets)"
        " values ($1, 'whatsapp', 'whatsapp', '1', '') returning id",
        tenant,
    )
    workers = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_messaging")
    app = await db.open_pool(database_url, minimum=1, maximum=1, role="caudal_app")
    try:
        breakers = Breakers()
        board = BreakerBoard(workers, "w", breakers)
        await board.once()
        breakers.present[number] = State.OPEN
        breakers.present[number + 1] = State.OPEN  # an account that is gone
        await board.once()
        row = await pool.fetchrow("select * from caudal.breaker")
        assert (row["worker"], row["account_id"], row["state"]) == ("w", number, "open")
        await board.once()
        assert await pool.fetchrow("select * from caudal.breaker") == row
        breakers.present[number] = State.CLOSED
        await board.once()
        after = await pool.fetchrow("select * from caudal.breaker")
        assert after["state"] == "closed"
        assert after["since"] > row["since"]
        for name, seen in (("ours", 1), ("theirs", 0)):
            async with db.tenant_transaction(app, name, readonly=True) as connection:
                assert await connection.fetchval("select count(*) from caudal.breaker") == seen
        await board.withdraw()
        assert await pool.fetchval("select count(*) from caudal.breaker") == 0
    finally:
        await workers.close()
        await app.close()
