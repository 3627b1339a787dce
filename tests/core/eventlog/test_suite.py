"""What every log does. Each test runs on PostgreSQL and on a real Kafka broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from caudal.core.eventlog.port import Connection, Consumer, Outgoing, Partition, PartitionLost, Poison, Record
from caudal.core.eventlog.worker import AfterCommit, BatchWorker, LaneWorker
from tests.core.eventlog.conftest import LEASE, Bench, committed

pytestmark = pytest.mark.timeout(60)


async def take(consumer: Consumer, count: int, seconds: float = 20) -> list[Record]:
    """`count` records, polled as they come."""
    found: list[Record] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += await consumer.poll(count - len(found), 1.0)
    return found


async def until(true: Any, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def held(consumer: Consumer) -> set[Partition]:
    parts: Any = consumer
    return {place for place, one in parts._held.items() if one.keep}


async def test_every_group_gets_everything_in_order_of_each_key(bench: Bench) -> None:
    log = await bench.open()
    one, two = await bench.consumer(log, "one"), await bench.consumer(log, "two")
    for start in range(0, 60, 20):
        await bench.publish(log, [(f"k{n % 7}", str(n)) for n in range(start, start + 20)])
    for consumer in (one, two):
        got = await take(consumer, 60)
        for key in {r.key for r in got}:
            numbers = [int(r.value) for r in got if r.key == key]
            assert numbers == [n for n in range(60) if f"k{n % 7}" == key]
            assert len({r.partition for r in got if r.key == key}) == 1


async def test_what_was_not_committed_comes_again_to_the_next_member(bench: Bench) -> None:
    log = await bench.open()
    first = await bench.consumer(log)
    await bench.publish(log, [("k", str(n)) for n in range(10)])
    got = await take(first, 10)
    await first.commit(committed(got[:4]))
    await first.close()
    second = await bench.consumer(log)
    assert [int(r.value) for r in await take(second, 6)] == list(range(4, 10))


async def test_rewind_reads_again_from_what_is_committed(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    await bench.publish(log, [("k", str(n)) for n in range(6)])
    await consumer.commit(committed((await take(consumer, 6))[:2]))
    await consumer.rewind()
    assert [int(r.value) for r in await take(consumer, 4)] == [2, 3, 4, 5]


async def test_what_is_rolled_back_was_never_published(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    async with bench.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await log.publish([Outgoing(bench.topic, "k", b"gone")], connection)
        await transaction.rollback()
    async with bench.pool.acquire() as connection, connection.transaction():
        await log.publish([Outgoing(bench.topic, "k", b"kept")], connection)
        assert await consumer.poll(10, 0.3) == []
    log.announce(bench.topic)
    assert [r.value for r in await take(consumer, 1)] == [b"kept"]


async def test_a_late_commit_is_not_skipped(bench: Bench) -> None:
    """The transaction that wrote first commits last; in between others commit, and are read."""
    log = await bench.open()
    consumer = await bench.consumer(log)
    seen: list[Record] = []
    async with bench.pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await log.publish([Outgoing(bench.topic, "slow", b"late")], slow)
        others = asyncio.create_task(
            asyncio.wait_for(bench.publish(log, [(f"k{n}", str(n)) for n in range(40)]), 10)
        )
        async with asyncio.timeout(0.5) as limit:
            try:
                seen += await consumer.poll(100, 0.4)
                await consumer.commit(committed(seen))
            finally:
                limit.reschedule(None)
        await transaction.commit()
        await others
    log.announce(bench.topic)
    seen += await take(consumer, 41 - len(seen))
    assert sorted(r.value for r in seen) == sorted([b"late", *(str(n).encode() for n in range(40))])


async def test_members_share_the_partitions_and_take_over_from_one_that_leaves(bench: Bench) -> None:
    log, other = await bench.open(), await bench.open()
    one = await bench.consumer(log)
    await until(lambda: len(held(one)) == 4)
    two = await bench.consumer(other)
    await until(lambda: len(held(one)) == 2 and len(held(two)) == 2)
    assert not held(one) & held(two)
    await two.close()
    await until(lambda: len(held(one)) == 4)


async def test_a_killed_members_partitions_go_to_others_within_seconds(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    await until(lambda: len(held(consumer)) == 4)
    async with bench.member("g") as member:
        await until(lambda: len(held(consumer)) == 2)
        await bench.publish(log, [(f"k{n}", str(n)) for n in range(40)])
        assert member.stdout is not None
        its = await asyncio.wait_for(member.stdout.readline(), 15)
        member.kill()
        died = time.monotonic()
        got: list[Record] = []
        while its.strip() not in {r.value for r in got}:
            got += await consumer.poll(100, 0.5)
            assert time.monotonic() - died < LEASE * 3 + 3


async def test_lag_is_what_is_not_committed(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    await until(lambda: len(held(consumer)) == 4)
    assert sum((await consumer.lag()).values()) == 0
    await bench.publish(log, [("k", str(n)) for n in range(5)])
    got = await take(consumer, 5)
    assert sum((await consumer.lag()).values()) == 5
    await consumer.commit(committed(got[:3]))
    assert sum((await consumer.lag()).values()) == 2


async def test_a_poison_record_goes_to_dead_letters_and_the_stream_goes_on(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    good: list[bytes] = []
    everything = asyncio.Event()

    async def handle(records: list[Record], _connection: Connection) -> AfterCommit | None:
        if any(r.value == b"13" for r in records):
            raise Poison("unlucky", "It is thirteen.")

        def after() -> None:
            good.extend(r.value for r in records)
            if len(good) == 29:
                everything.set()

        return after

    worker = asyncio.create_task(BatchWorker(bench.pool, consumer, handle, bench.metrics).run())
    await bench.publish(log, [(f"k{n % 3}", str(n)) for n in range(30)])
    await asyncio.wait_for(everything.wait(), 20)
    worker.cancel()
    await asyncio.wait([worker])
    assert sorted(map(int, good)) == [n for n in range(30) if n != 13]
    row = await bench.pool.fetchrow("select topic, payload, reason, sentence from caudal.dead_letter")
    assert tuple(row) == (f"log:{bench.topic}", b"13", "unlucky", "It is thirteen.")
    assert sum((await consumer.lag()).values()) == 0


async def test_lanes_work_side_by_side_and_keep_the_order_of_each(bench: Bench) -> None:
    log = await bench.open()
    consumer = await bench.consumer(log)
    done: dict[str, list[int]] = {}
    running: set[str] = set()
    most = 0
    failed: set[bytes] = set()
    finished = asyncio.Event()

    async def handle(record: Record) -> None:
        nonlocal most
        assert record.key not in running
        running.add(record.key)
        most = max(most, len(running))
        try:
            await asyncio.sleep(0.005)
            if int(record.value) % 11 == 0 and record.value not in failed:
                failed.add(record.value)
                raise RuntimeError("once")
        finally:
            running.discard(record.key)
        done.setdefault(record.key, []).append(int(record.value))
        if sum(map(len, done.values())) == 100:
            finished.set()

    lanes = LaneWorker(bench.pool, consumer, handle, bench.metrics, concurrency=8)
    worker = asyncio.create_task(lanes.run())
    await bench.publish(log, [(f"k{n % 10}", str(n)) for n in range(100)])
    await asyncio.wait_for(finished.wait(), 20)
    async with asyncio.timeout(30):
        while sum((await consumer.lag()).values()):
            await asyncio.sleep(0.02)
    worker.cancel()
    await asyncio.wait([worker])
    assert most > 3
    for numbers in done.values():
        assert numbers == sorted(numbers)
    assert await bench.pool.fetchval("select count(*) from caudal.dead_letter") == 0


async def test_what_a_lapsed_lease_left_undone_is_done_when_it_is_back(bench: Bench) -> None:
    """A database away for longer than the lease: what waits in a lane meanwhile must not count as done."""
    log = await bench.open()
    consumer = await bench.consumer(log)
    started, go = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def handle(record: Record) -> None:
        started.set()
        await go.wait()
        done.append(int(record.value))

    worker = asyncio.create_task(LaneWorker(bench.pool, consumer, handle, bench.metrics).run())
    try:
        await bench.publish(log, [("k", str(n)) for n in range(20)])
        await asyncio.wait_for(started.wait(), 30)
        place = next(iter((await consumer.lag()).keys()))
        async with bench.pool.acquire() as connection, connection.transaction():
            # No heartbeat gets through, nor a commit.
            await connection.execute("lock table caudal.log_group in access exclusive mode")
            if bench.kind == "postgres":
                async with asyncio.timeout(30):
                    while consumer.holds(place):
                        await asyncio.sleep(0.02)  # the lease's end has no event
            go.set()
            await asyncio.sleep(LEASE)
        async with asyncio.timeout(30):
            while len(set(done)) < 20:
                await asyncio.sleep(0.02)
    finally:
        worker.cancel()
        await asyncio.wait([worker])
    # Some came twice; in their order all the same.
    assert [number for at, number in enumerate(done) if number not in done[:at]] == list(range(20))


async def test_a_member_that_left_cannot_commit(bench: Bench) -> None:
    log = await bench.open()
    consumer: Any = await bench.consumer(log)
    await bench.publish(log, [("k", "1")])
    got = await take(consumer, 1)
    await consumer.close()
    with pytest.raises(PartitionLost):
        await consumer.commit(committed(got))
    again = await bench.consumer(log)
    assert [r.value for r in await take(again, 1)] == [b"1"]


async def test_the_backlog_is_what_is_not_where_consumers_read(bench: Bench) -> None:
    log: Any = await bench.open()
    consumer = await bench.consumer(log)
    await bench.publish(log, [(f"k{n}", str(n)) for n in range(5)])
    await take(consumer, 5)
    async with asyncio.timeout(20):
        while sum((await log.backlog()).values()):
            await asyncio.sleep(0.02)
    if bench.kind == "postgres":
        # Consumers read where it is published.
        assert await log.backlog() == {}
        return
    assert len(await log.backlog()) == 4
    log._relay._task.cancel()
    await asyncio.wait([log._relay._task])
    await bench.publish(log, [("k", str(n)) for n in range(3)])
    assert sum((await log.backlog()).values()) == 3
