"""A delivery's states only move forward, whatever order the news comes in: in Python, and in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import asyncpg
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.eventlog.settings import LogSettings
from caudal.messaging import topics
from caudal.messaging.deliveries import Deliveries, Receipt, Sent
from caudal.messaging.lattice import Position, State, advance
from caudal.messaging.notify import Notifier
from caudal.messaging.settings import MessagingSettings

NEWS = st.builds(Position, st.integers(1, 3), st.sampled_from([s for s in State if s is not State.PENDING]))


def after(start: Position, news: list[Position]) -> Position:
    for item in news:
        start = advance(start, item)
    return start


@given(st.lists(NEWS, max_size=8), st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_and_repetition_change_nothing(news: list[Position], random: Any, attempt: int) -> None:
    start = Position(attempt, State.SENDING)
    expected = after(start, news)
    shuffled = news * 2
    random.shuffle(shuffled)
    assert after(start, shuffled) == expected


@given(st.lists(NEWS, max_size=10))
def test_nothing_moves_back(news: list[Position]) -> None:
    places = [Position(2, State.SENDING)]
    for item in news:
        places.append(advance(places[-1], item))
    for before, now in pairwise(places):
        assert now.state.rank >= before.state.rank


async def make(pool: asyncpg.Pool[Any], url: str) -> Deliveries:
    log = PostgresLog(pool, url, LogSettings(), listen=False)
    await log.ensure(topics.topics(2))
    return Deliveries(pool, log, Notifier(pool), MessagingSettings())


async def delivery(pool: asyncpg.Pool[Any], *, attempt: int = 1, state: str = "sending") -> int:
    """A delivery of a message of its own."""
    tenant = await pool.fetchval(
        "insert into caudal.tenant(name) values ('t')"
        " on conflict (name) do update set name = 't' returning id"
    )
    conversation = await pool.fetchval(
        "insert into caudal.conversation(tenant_id, name) values ($1, $2) returning id", tenant, str(uuid4())
    )
    message = await pool.fetchval(
        "insert into caudal.message(id, tenant_id, conversation_id, place, sender, content, sent_at,"
        " routed_at) values ($1, $2, $3, 1, $4, 'x', now(), now()) returning id",
        uuid4(), tenant, conversation, str(uuid4()),
    )  # fmt: skip
    number: int = await pool.fetchval(
        "insert into caudal.delivery(tenant_id, message_id, conversation_id, channel, address, state,"
        " attempt) values ($1, $2, $3, 'whatsapp', '+5511999998888', $4, $5) returning id",
        tenant, message, conversation, state, attempt,
    )  # fmt: skip
    return number


async def test_the_database_has_the_same_order(pool: asyncpg.Pool[Any], database_url: str) -> None:
    ranks = await pool.fetch("select s, caudal.delivery_rank(s) as r from unnest($1::text[]) s", list(State))
    assert [row["s"] for row in sorted(ranks, key=lambda row: row["r"])] == list(State)
    settled = [s for s in State if s not in (State.PENDING, State.SENDING)]
    for now in settled:
        for told in settled:
            for attempt in (1, 2):
                number = await delivery(pool, attempt=2, state=now)
                await pool.execute(
                    "select caudal.delivery_advance($1, $2, $3, $4, $5, $6)",
                    [number], [attempt], [told], [datetime.now(UTC)], [None], [None],
                )  # fmt: skip
                found = await pool.fetchval("select state from caudal.delivery where id = $1", number)
                assert found == advance(Position(2, now), Position(attempt, told)).state


async def test_receipts_before_their_message_are_kept_for_it(
    pool: asyncpg.Pool[Any], database_url: str
) -> None:
    deliveries = await make(pool, database_url)
    number = await delivery(pool)
    tenant = await pool.fetchval("select id from caudal.tenant")
    at = datetime.now(UTC)
    early = [
        Receipt(tenant, "whatsapp", "wamid.1", State.READ, at),
        Receipt(tenant, "whatsapp", "wamid.1", State.DELIVERED, at - timedelta(seconds=1)),
        Receipt(tenant, "whatsapp", "wamid.1", State.READ, at),
    ]
    await deliveries.apply_receipts(early)
    assert await pool.fetchval("select state from caudal.delivery") == "sending"
    await deliveries.settle(number, 1, Sent("wamid.1"))
    row = await pool.fetchrow("select state, sent_at, delivered_at, read_at from caudal.delivery")
    assert (row["state"], row["delivered_at"], row["read_at"]) == ("read", at - timedelta(seconds=1), at)
    message = await pool.fetchrow("select status, delivered_at, read_at from caudal.message")
    assert tuple(message) == ("READ", at - timedelta(seconds=1), at)
    assert await pool.fetchval("select count(*) from caudal.early_receipt") == 0
    # All of it once more, and an older word: nothing changes, and the sender is told nothing twice.
    await deliveries.apply_receipts(
        [*early, Receipt(tenant, "whatsapp", "wamid.1", State.FAILED, at, "x", "y")]
    )
    assert tuple(await pool.fetchrow("select state, read_at, reason from caudal.delivery")) == (
        "read",
        at,
        None,
    )
    told = await pool.fetch("select payload ->> 'status' as status from caudal.notification order by id")
    assert [row["status"] for row in told] == ["READ"]
