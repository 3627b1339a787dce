"""A writer whose connection was lost without the server's noticing."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from caudal.telemetry.statements import COMMITTED
from caudal.telemetry.storage import Writer
from caudal.telemetry.transaction import Mark, store_at_once

from .conftest import MakePipeline
from .test_submit import ANYONE, submit, v1


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """The writers of the pipelines that the test makes."""
    made: list[Writer] = []

    class Known(Writer):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            made.append(self)

    monkeypatch.setattr("caudal.app.ingest.Writer", Known)
    return made


async def test_a_lost_connection_does_not_hold_its_rows(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], writers: list[Writer]
) -> None:
    pipeline = await make_pipeline(ingest_writers=1)
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    writer = writers[0]
    lost = await writer._connected()
    # The same row, uncommitted, by a connection that the writer has given up and the server has not.
    transaction = lost.transaction()
    await transaction.start()
    await lost.execute(
        "insert into caudal.sample (series, ts, received, v_num)"
        " select id, '2025-10-07T15:30:02Z', now(), 1 from caudal.series"
    )
    writer._connection = None
    await writer._connected()
    outcome = (await submit(pipeline, [v1("a", 2, ("t", 1))], timeout=10))[0]
    assert outcome.tally.stored == 1
    assert await pool.fetchval("select count(*) from caudal.sample") == 2


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_lost_over_the_commit(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Whether the transaction was committed or not, its rows are there once and its messages count once."""
    pipeline = await make_pipeline(ingest_writers=1)
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    commit = Writer._commit
    lost = []

    class Gone:
        async def commit(self) -> None:
            raise ConnectionResetError

    async def losing(writer: Writer, connection: Any, transaction: Any, number: str) -> None:
        if not lost:
            lost.append(number)
            if committed:
                await transaction.commit()
            connection.terminate()
            transaction = Gone()
        await commit(writer, connection, transaction, number)

    # Of every writer: which of them takes the batch is not ours to say.
    monkeypatch.setattr(Writer, "_commit", losing)
    outcome = (await submit(pipeline, [v1("a", 2, ("t", 1)), ("x/y", b"{", ANYONE)], timeout=20))[0]
    assert len(lost) == 1
    assert (outcome.tally.stored, outcome.tally.duplicates) == (1, 0)
    assert await pool.fetchval("select count(*) from caudal.sample") == 2
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 1
    assert await pool.fetchval("select sum(messages) from caudal.ledger") == 3


async def test_another_transaction_of_the_same_number_is_not_taken_for_ours(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], writers: list[Writer]
) -> None:
    """After a crash the server gives again the numbers of transactions that it has forgotten."""
    pipeline = await make_pipeline(ingest_writers=1)
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    theirs = await pool.fetchval("select pg_current_xact_id()::text")
    for number in (theirs, str(int(theirs) + 10_000)):
        verdict = await pool.fetchrow(COMMITTED, number, writers[0].name, 1)
        assert verdict is not None
        assert tuple(verdict) == (False, False)


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_lost_over_a_transaction_of_one_message(
    make_pipeline: MakePipeline,
    pool: asyncpg.Pool[Any],
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    pipeline = await make_pipeline(ingest_writers=1)
    await pool.execute("update caudal.rollup_state set threshold = '2025-01-01'")
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    lost = []

    async def losing(connection: Any, entries: Any, mark: Mark) -> Any:
        if lost:
            return await store_at_once(connection, entries, mark)
        lost.append(mark)
        if committed:
            await store_at_once(connection, entries, mark)
        connection.terminate()
        raise ConnectionResetError

    monkeypatch.setattr("caudal.telemetry.storage.store_at_once", losing)
    outcome = (await submit(pipeline, [v1("a", 2, ("t", 1))], timeout=20))[0]
    assert lost, "the batch took another road"
    assert (outcome.tally.stored, outcome.tally.duplicates) == (1, 0)
    assert await pool.fetchval("select count(*) from caudal.sample") == 2
    assert await pool.fetchval("select sum(messages) from caudal.ledger") == 2
    assert await pool.fetchval("select sum(stored) from caudal.ledger") == 2


async def test_what_is_late_is_turned_away_once_and_marked(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute("update caudal.rollup_state set threshold = '2025-11-01'")
    pipeline = await make_pipeline(ingest_writers=1)
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    tries = []

    async def counted(connection: Any, entries: Any, mark: Mark) -> Any:
        tries.append(len(entries))
        return await store_at_once(connection, entries, mark)

    monkeypatch.setattr("caudal.telemetry.storage.store_at_once", counted)
    for second in (2, 3, 4):
        outcome = (await submit(pipeline, [v1("a", second, ("t", 1))], timeout=20))[0]
        assert outcome.tally.stored == 1
    assert await pool.fetchval("select count(*) from caudal.sample") == 4
    # Each connection marks an hour once in an epoch.
    assert 1 <= await pool.fetchval("select count(*) from caudal.rollup_log") <= 2
    assert await pool.fetchval("select sum(stored) from caudal.ledger") == 4
    # Each of the two writers is told once; then they know.
    assert len(tries) <= 2
