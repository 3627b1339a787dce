"""No update is ever lost, whatever the order in which writers commit and the threshold moves."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.insight.rollups import BUSY, FEW
from caudal.telemetry import invalidation
from caudal.telemetry.rows import head, other, pack_double, pack_numbers, tail, times

from .conftest import World, micros

HOUR = timedelta(hours=1)
NOW = datetime(2024, 3, 10, 12, 20, tzinfo=UTC)
EDGE = NOW.replace(minute=0)
PATIENCE = 15
"""Seconds for what gives up by itself after two: else it would wait as long as any statement may."""


async def hours(world: World, series: int) -> dict[datetime, int]:
    rows = await world.pool.fetch(
        "select bucket, n from caudal.hours_of(array[$1::int], $2, $3)",
        series,
        EDGE - 48 * HOUR,
        EDGE + 48 * HOUR,
    )
    return {row["bucket"]: row["n"] for row in rows}


async def kept(world: World, series: int) -> dict[datetime, int]:
    rows = await world.pool.fetch("select bucket, n from caudal.rollup_hour where series = $1", series)
    return {row["bucket"]: row["n"] for row in rows}


async def test_live_samples_leave_no_mark_and_are_in_the_next_answer(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    await world.numbers(series, [(NOW, 1.0), (NOW + HOUR, 2.0)])
    assert await world.pool.fetchval("select count(*) from caudal.rollup_log") == 0
    assert await hours(world, series) == {EDGE: 1, EDGE + HOUR: 1}
    assert await kept(world, series) == {}


async def test_late_samples_are_in_the_next_answer_before_and_after_the_refresher(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    await world.numbers(series, [(EDGE - 30 * HOUR, 1.0)])
    assert await hours(world, series) == {EDGE - 30 * HOUR: 1}
    assert await world.refresher.settle() == 1
    assert await kept(world, series) == {EDGE - 30 * HOUR: 1}
    await world.numbers(series, [(EDGE - 30 * HOUR + timedelta(minutes=1), 1.0)])
    assert await hours(world, series) == {EDGE - 30 * HOUR: 2}
    assert await kept(world, series) == {EDGE - 30 * HOUR: 1}
    await world.refresher.settle()
    assert await hours(world, series) == await kept(world, series) == {EDGE - 30 * HOUR: 2}


async def test_the_threshold_moves_by_whole_hours_once_they_are_over(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    await world.numbers(series, [(NOW, 1.0)])
    assert not await world.refresher.advance(EDGE + HOUR + timedelta(minutes=4))
    assert await world.refresher.advance(EDGE + HOUR + timedelta(minutes=5))
    assert await hours(world, series) == {EDGE: 1}
    await world.refresher.settle()
    assert await kept(world, series) == {EDGE: 1}


async def test_it_is_idle_when_nothing_changes(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    await world.numbers(series, [(EDGE - HOUR, 1.0)])
    await world.refresher.settle()
    async with world.pool.acquire() as connection, connection.transaction():
        assert tuple(await connection.fetchrow("select * from caudal.rollup_step(100, 0)")) == (
            0,
            False,
            0,
            0,
        )
        assert not await connection.fetchval("select caudal.rollup_turn()")
        assert not await connection.fetchval("select caudal.rollup_advance($1, '5 min'::interval)", NOW)
        # No transaction number was needed: nothing at all was written.
        assert await connection.fetchval("select pg_current_xact_id_if_assigned()::text") is None


async def test_a_writer_that_commits_across_the_move_is_waited_for(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    async with world.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert (await invalidation.edge(connection)).threshold == micros(EDGE)
        moving = asyncio.create_task(world.refresher.advance(EDGE + 2 * HOUR))
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        async with asyncio.timeout(10):
            while not await world.pool.fetchval(waiting):
                assert not moving.done(), "it did not wait"
                await asyncio.sleep(0)
        await connection.execute(
            "insert into caudal.sample(series, ts, received, v_num) values ($1, $2, now(), 1)", series, NOW
        )
        await transaction.commit()
        assert await moving
    await world.refresher.settle()
    assert await kept(world, series) == {EDGE: 1}


async def test_a_writer_that_hangs_holds_the_threshold_but_not_the_other_writers(world: World) -> None:
    await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    async with world.pool.acquire() as hanging, world.pool.acquire() as other:
        transaction = hanging.transaction()
        await transaction.start()
        await invalidation.edge(hanging)
        async with asyncio.timeout(PATIENCE):
            assert not await world.refresher.advance(EDGE + 2 * HOUR)  # gives up after its lock timeout
            assert (await invalidation.edge(other)).threshold == micros(EDGE)
        await transaction.rollback()
    assert await world.refresher.advance(EDGE + 2 * HOUR)


@pytest.mark.parametrize("seed", range(3))
async def test_no_update_is_lost_while_writers_and_the_threshold_race(world: World, seed: int) -> None:
    tenant = await world.tenant("a", "America/Sao_Paulo")
    ids = [await world.series(tenant, f"p{i}") for i in range(4)]
    start = EDGE - 6 * HOUR
    await world.put_threshold(start)
    done = asyncio.Event()
    taken: set[tuple[int, datetime]] = set()

    async def writer(number: int) -> None:
        rng, marks = random.Random(seed * 100 + number), invalidation.Marks()
        for _ in range(40):
            rows = {}
            for _ in range(rng.randint(1, 20)):
                key = (rng.choice(ids), start + timedelta(seconds=rng.randrange(-10 * 3600, 10 * 3600)))
                if key not in taken:
                    rows[key] = (*key, rng.random(), None, None, 0)
            taken.update(rows)
            await world.store(rows.values(), marks)
        done.set()

    async def refresher() -> None:
        now = start
        while not done.is_set() or now < start + 8 * HOUR:
            now += HOUR / 4
            await world.refresher.advance(now)
            await world.refresher.step()

    async def reader() -> None:
        # At every moment the rollups and the samples say the same: one statement, one snapshot.
        while not done.is_set():
            rows = await world.pool.fetch(
                "select i.id, (select sum(n) from caudal.hours_of(array[i.id], $2, $3)) as told,"
                " (select count(*) from caudal.sample s where s.series = i.id and s.ts >= $2 and s.ts < $3)"
                " as true"
                " from unnest($1::int[]) i(id)",
                ids, start - 24 * HOUR, start + 24 * HOUR,
            )  # fmt: skip
            assert all((row["told"] or 0) == row["true"] for row in rows)

    await asyncio.gather(*(writer(n) for n in range(3)), refresher(), reader())
    await world.refresher.settle()
    edge = await world.pool.fetchval("select threshold from caudal.rollup_state")
    stored = await world.pool.fetch(
        "select series, date_trunc('hour', ts) as bucket, count(*) as n, sum(v_num) as vsum"
        " from caudal.sample"
        " where ts < $1 group by 1, 2 order by 1, 2", edge,
    )  # fmt: skip
    rolled = await world.pool.fetch("select series, bucket, n, vsum from caudal.rollup_hour order by 1, 2")
    assert [(r["series"], r["bucket"], r["n"]) for r in rolled] == [
        (r["series"], r["bucket"], r["n"]) for r in stored
    ]
    assert [r["vsum"] for r in rolled] == pytest.approx([r["vsum"] for r in stored])
    days = await world.pool.fetch("select series, bucket, n from caudal.rollup_day order by 1, 2")
    true = await world.pool.fetch(
        "select series, (ts at time zone 'America/Sao_Paulo')::date as bucket, count(*) as n"
        " from caudal.sample"
        " where (ts at time zone 'America/Sao_Paulo')::date < ($1 at time zone 'America/Sao_Paulo')::date"
        " group by 1, 2 order by 1, 2", edge,
    )  # fmt: skip
    assert [tuple(r) for r in days] == [tuple(r) for r in true]


async def test_a_mark_holds_for_its_epoch_and_no_longer(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    marks, late = invalidation.Marks(), EDGE - 30 * HOUR
    pending = "select count(*) from caudal.rollup_log"
    for second in range(5):
        row = (series, late + timedelta(seconds=second), 1.0, None, None, 0)
        await world.store([row], marks)
    assert await world.pool.fetchval(pending) == 1
    # Not taken up before the epoch ends: a writer of this epoch relies on it.
    await world.pool.execute("select caudal.rollup_step(100, 0)")
    assert await world.pool.fetchval(pending) == 1
    assert await world.refresher.settle() == 1
    assert await world.pool.fetchval(pending) == 0
    await world.store([(series, late + timedelta(seconds=9), 1.0, None, None, 0)], marks)
    assert await world.pool.fetchval(pending) == 1
    assert await hours(world, series) == {late: 6}
    await world.refresher.settle()
    assert await kept(world, series) == {late: 6}


async def test_a_replay_that_is_met_gets_small_steps(world: World) -> None:
    tenant = await world.tenant("a")
    late = [EDGE - hours * HOUR for hours in range(10, 10 + BUSY // 2)]
    ids = [await world.series(tenant, name) for name in ("one", "two")]
    await world.put_threshold(EDGE)
    await world.store([(series, at, 1.0, None, None, 0) for series in ids for at in late])
    step = await world.refresher.step()
    assert (step.made, step.more, step.taken) == (FEW, True, BUSY)
    # What is left when nobody marks any more is made in steps as large as ever.
    step = await world.refresher.step()
    assert step.made > FEW
    assert step.taken == 0
    await world.refresher.settle()
    assert [len(await kept(world, series)) for series in ids] == [len(late)] * 2


async def test_a_writer_that_relies_on_its_mark_is_waited_for(world: World) -> None:
    series = await world.series(await world.tenant("a"))
    await world.put_threshold(EDGE)
    marks, late = invalidation.Marks(), EDGE - 30 * HOUR
    await world.store([(series, late, 1.0, None, None, 0)], marks)
    async with world.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        edge = await invalidation.edge(connection)
        assert marks.missing(edge.epoch, {micros(late) // invalidation.HOUR_US: {series}}) == {}
        await connection.execute(
            "insert into caudal.sample(series, ts, received, v_num) values ($1, $2, now(), 1)",
            series, late + timedelta(seconds=1),
        )  # fmt: skip
        # Meanwhile the refresher gets no further: the mark stays.
        async with asyncio.timeout(PATIENCE):
            await world.refresher.step()
        assert await kept(world, series) == {}
        await transaction.commit()
    await world.refresher.settle()
    assert await kept(world, series) == {late: 2}


@given(
    st.lists(
        st.tuples(st.integers(1, 2**31 - 1), st.integers(0, 2**52), st.sampled_from("unptm")), max_size=20
    )
)
def test_late_rows_are_found_in_whatever_they_are_packed(made: list[tuple[int, int, str]]) -> None:
    packed = []
    for series, ts, kind in made:
        front = head(series, 0, 7 if kind in "up" else None)
        meta = b"{}" if kind == "m" else None
        at = times(ts, ts)
        packed.append(
            front + at[:-4] + other(None, "run", meta) if kind == "t"
            else front + at + pack_double(1.0) + tail(meta)
        )  # fmt: skip
    edge = 2**51
    found: invalidation.Hours = {}
    if packed:
        invalidation.add_late(found, b"".join(packed), len(packed), edge)
    true: invalidation.Hours = {}
    for series, ts, _ in made:
        if ts < edge:
            true.setdefault(ts // invalidation.HOUR_US, set()).add(series)
    assert found == true


def test_what_the_fast_road_packed_is_read_back() -> None:
    ids, ts = list(range(1, 12)), micros(NOW)
    parts = [part for one in ids for part in (head(one, 0, 3), times(ts, ts), 1.5, tail(None))]
    found: invalidation.Hours = {}
    invalidation.add_packed(found, pack_numbers(parts, len(ids)), len(ids), ts)
    assert found == {ts // invalidation.HOUR_US: set(ids)}


def test_what_was_marked_is_forgotten_with_its_epoch_and_when_it_is_too_much() -> None:
    marks = invalidation.Marks(most=5)
    marks.committed(1, {7: {1, 2, 3}})
    assert marks.missing(1, {7: {1, 4}, 8: {1}}) == {7: {4}, 8: {1}}
    assert marks.missing(2, {7: {1}}) == {7: {1}}
    marks.committed(1, {9: {1, 2, 3}})
    assert marks.missing(1, {7: {1}, 9: {1}}) == {7: {1}}
    marks.committed(0, {7: {1}})
    assert marks.missing(1, {7: {1}}) == {7: {1}}


async def test_the_app_role_cannot_touch_what_it_may_not(app_pool: asyncpg.Pool, world: World) -> None:
    for statement in (
        "select * from caudal.rollup_hour",
        "select * from caudal.rollup_log",
        "select caudal.invalidate('{1}', '{1}')",
        "select * from caudal.hours_of('{1}', now(), now())",
        "select caudal.rollup_step(1, 0)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app_pool.execute(statement)
