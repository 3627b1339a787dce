"""Dead letters found, read, corrected and put back; held messages released; the ledger right throughout."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncpg
import msgspec
import pytest

from caudal.core import db
from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.telemetry import dead_letters, ledger, replays
from caudal.telemetry.dead_letters import Filter
from caudal.telemetry.replays import release_held, replay
from caudal.telemetry.submit import Message, Outcome, submit

from .conftest import MakePipeline
from .test_submit import ANYONE, v1

TOPIC = "traksense/acme/plant/a/telem"


async def agrees(pool: asyncpg.Pool[Any]) -> None:
    """Sums agree, and with every row there is."""
    async with pool.acquire() as connection:
        assert all(line.agrees for line in await ledger.sums(connection))
        checks = await ledger.verify(connection)
    assert checks
    assert [check for check in checks if not check.agrees] == []


async def total(pool: asyncpg.Pool[Any]) -> dict[str, int]:
    names = ("received", "stored", "duplicates", "dead", "held", "empty")
    row = await pool.fetchrow(
        f"select {', '.join(f'sum({n})::int as {n}' for n in names)} from caudal.ledger"
    )
    assert row is not None
    return dict(row)


async def test_find_by_everything_in_pages(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    rubbish: list[Message] = [(TOPIC, b"\xff", ANYONE)] * 3 + [("else/where", b"{}", ANYONE)]
    await submit(pipeline, [*rubbish, *(v1("b", n, ("t", f"warm {n}")) for n in range(5))])
    first = await dead_letters.find(pool, Filter(), limit=4)
    second = await dead_letters.find(pool, Filter(), before=first.after, limit=20)
    assert [len(first.items), len(second.items), second.after] == [4, 5, None]
    numbers = [letter.id for letter in (*first.items, *second.items)]
    assert numbers == sorted(set(numbers), reverse=True)
    for wanted, count in [
        (Filter(reason="encoding"), 3), (Filter(tenant="acme"), 8), (Filter(topic=TOPIC), 3),
        (Filter(topic="else/*"), 1), (Filter(topic="traksense/*/telem"), 8), (Filter(status="replayed"), 0),
    ]:  # fmt: skip
        assert len((await dead_letters.find(pool, wanted)).items) == count, wanted
        assert len(await dead_letters.choose(pool, wanted)) == count
    found = await dead_letters.causes(pool, Filter())
    # Five values that differ, in one place of one format, are one cause.
    assert [(cause.reason, cause.letters, cause.devices) for cause in found] == [
        ("value", 5, 1), ("encoding", 3, 1), ("topic", 1, 1),
    ]  # fmt: skip
    assert len(await dead_letters.choose(pool, Filter(cause=found[0].cause))) == 5
    await agrees(pool)


async def test_show_marks_the_place(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    topic, payload, _ = v1("a", 1, ("t", 1), ("bad", "warm"), ("worse", None))
    await submit(pipeline, [(topic, payload, ANYONE)])
    numbers = await dead_letters.choose(pool, Filter())
    shown = await dead_letters.show(pool, numbers[0])
    assert shown.payload[shown.start : shown.end] == b'"warm"'
    assert shown.siblings == numbers[1:]
    with pytest.raises(NotFound):
        await dead_letters.show(pool, 10**12)


async def test_fix_and_replay_settle_every_letter_of_the_message(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 1, ("t", 1), ("bad", "warm"), ("worse", None))])
    numbers = await dead_letters.choose(pool, Filter())
    _, good, _ = v1("a", 1, ("t", 1), ("bad", 2), ("worse", 3))
    assert await dead_letters.fix(pool, numbers[0], payload=good) == numbers
    results = await replay(pool, pipeline, numbers[:1], by="me")
    assert [(r.id, r.result, r.stored, r.duplicates) for r in results] == [
        (number, "replayed", 2, 1) for number in numbers
    ]
    shown = await dead_letters.show(pool, numbers[1])
    assert (shown.letter.status, shown.letter.settled_by) == ("replayed", "me")
    assert shown.letter.outcome is not None
    assert msgspec.json.decode(shown.letter.outcome)["stored"] == 2
    assert b"warm" in shown.payload
    # Again: settled, and nothing moves.
    before = await total(pool)
    assert [r.result for r in await replay(pool, pipeline, numbers, by="me")] == ["settled"] * 2
    assert await total(pool) == before
    assert before == {"received": 4, "stored": 3, "duplicates": 1, "dead": 0, "held": 0, "empty": 0}
    await agrees(pool)
    with pytest.raises(Conflict):
        await dead_letters.fix(pool, numbers[0], payload=b"{}")


async def test_what_is_refused_again_stays_open_under_its_number(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [(TOPIC, b"{", ANYONE), v1("a", 1, ("bad", "warm"))])
    numbers = await dead_letters.choose(pool, Filter())
    for _ in range(2):
        results = await replay(pool, pipeline, numbers, by="me")
        assert [r.result for r in results] == ["refused", "refused"]
        assert "warm" in results[1].sentence or "text" in results[1].sentence
        assert await dead_letters.choose(pool, Filter()) == numbers
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 2
    await agrees(pool)
    # A correction that is wrong as well leaves a letter of its own.
    await dead_letters.fix(pool, numbers[0], payload=b"[")
    result = (await replay(pool, pipeline, numbers[:1], by="me"))[0]
    assert (result.result, result.dead) == ("replayed", 1)
    assert await dead_letters.choose(pool, Filter()) == sorted([numbers[1], *result.dead_letters])
    await agrees(pool)


async def test_replay_once_the_cause_is_gone(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'refuse')")
    pipeline = await make_pipeline()
    await submit(
        pipeline, [v1(f"d{n % 7}", n, ("t", n), ("u", n)) for n in range(50)], received=[10**15] * 50
    )
    cause = (await dead_letters.causes(pool, Filter()))[0]
    assert (cause.reason, cause.letters, cause.devices) == ("unknown_device", 50, 7)
    await pool.execute("update caudal.tenant set unknown_devices = 'register'")
    pipeline.forget("tenant:1:")
    seen: list[int] = []
    numbers = await dead_letters.choose(pool, Filter(cause=cause.cause))
    results = await replay(pool, pipeline, numbers, by="me", progress=lambda done, _: seen.append(done))
    assert {(r.result, r.stored) for r in results} == {("replayed", 2)}
    assert seen == [50]
    assert await pool.fetchval("select count(distinct received) from caudal.sample") == 1
    assert await total(pool) == {
        "received": 100, "stored": 100, "duplicates": 0, "dead": 0, "held": 0, "empty": 0,
    }  # fmt: skip
    await agrees(pool)


async def test_two_replays_at_once_count_once(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [("wrong/topic", v1("a", n, ("t", n))[1], ANYONE) for n in range(20)])
    numbers = await dead_letters.choose(pool, Filter())
    for number in numbers:
        await dead_letters.fix(pool, number, topic=TOPIC)
    await asyncio.gather(*(replay(pool, pipeline, numbers, by="me") for _ in range(3)))
    assert await pool.fetchval("select count(*) from caudal.sample") == 20
    assert (await total(pool))["dead"] == 0
    await agrees(pool)


async def test_two_replays_of_what_is_refused_again_lose_nothing(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take the letters that the other's try left for twins of its own, and remove them."""
    pipelines = [await make_pipeline(), await make_pipeline()]
    await submit(pipelines[0], [(TOPIC, b"{" + bytes([n]), ANYONE) for n in range(128, 158)])
    numbers = await dead_letters.choose(pool, Filter())
    both_are_here, one_is_done = asyncio.Event(), asyncio.Event()
    here = 0

    async def meet(*arguments: Any, **named: Any) -> list[Outcome]:
        nonlocal here
        came = await submit(*arguments, **named)
        here += 1
        if here == 2:
            both_are_here.set()
        # If they may meet at all, they do, and one is done before the other goes on; who has to go alone does
        # not wait for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for((both_are_here if here == 1 else one_is_done).wait(), 0.5)
        return came

    async def put_back(own: Any, pipeline: Any) -> list[replays.Replayed]:
        came = await replay(own, pipeline, numbers, by="me")
        one_is_done.set()
        return came

    monkeypatch.setattr(replays, "submit", meet)
    # Pools of their own, as two processes have.
    others = [await asyncpg.create_pool(database_url, min_size=1, max_size=3) for _ in range(2)]
    came = await asyncio.gather(
        *(put_back(own, pipeline) for own, pipeline in zip(others, pipelines, strict=True))
    )
    for own in others:
        await own.close()
    assert {result.result for results in came for result in results} == {"refused"}
    assert await dead_letters.choose(pool, Filter()) == numbers
    await agrees(pool)


async def test_discard_and_expire(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [(TOPIC, bytes([n]), ANYONE) for n in range(128, 138)])
    numbers = await dead_letters.choose(pool, Filter())
    assert await dead_letters.discard(pool, numbers[:4], by="me") == 4
    assert await dead_letters.discard(pool, numbers[:5], by="me") == 1
    assert len(await dead_letters.choose(pool, Filter(status="discarded"))) == 5
    assert {r.result for r in await replay(pool, pipeline, numbers[:5], by="me")} == {"settled"}
    await agrees(pool)
    await pool.execute("update caudal.dead_letter set received = now() - interval '15 days' where id % 2 = 0")
    assert await pool.fetchval("select caudal.prune_dead_letters(14, 100)") == 5
    await agrees(pool)


async def test_samples_that_retention_drops_stay_in_the_ledger(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    topic, payload, _ = v1("a", 1, ("t", 1))
    years = ("1975", "2003", "2010", "2024")
    await submit(pipeline, [(topic, payload.replace(b"2025", year.encode()), ANYONE) for year in years])
    await submit(pipeline, [v1("a", 1, ("t", 1))])
    await pool.execute("delete from caudal.rollup_log")
    await pool.execute("delete from caudal.rollup_stale")
    dropped = await pool.fetch("select caudal.apply_retention(3650)")
    assert dropped
    left = await pool.fetchval("select count(*) from caudal.sample")
    assert left < 5
    assert await pool.fetchval("select parts from caudal.expired where kind = 'sample'") == 5 - left
    await agrees(pool)
    await pool.execute("update caudal.tenant set retention_days = 1")
    await pool.execute("select caudal.apply_tenant_retention(0, 100)")
    assert await pool.fetchval("select count(*) from caudal.sample") == 0
    await agrees(pool)


async def test_a_tenant_reaches_its_own_alone(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    theirs = ("traksense/rival/plant/a/telem", b"{", ANYONE)
    await submit(pipeline, [(TOPIC, b"{", ANYONE), theirs])
    numbers = await dead_letters.choose(pool, Filter())
    results = await replay(pool, pipeline, numbers, by="me", tenant="acme")
    assert [r.id for r in results] == numbers[:1]
    with pytest.raises(NotFound):
        await replay(pool, pipeline, numbers[1:], by="me", tenant="acme")
    with pytest.raises(InvalidInput):
        await dead_letters.fix(pool, numbers[0])
    with pytest.raises(InvalidInput):
        await dead_letters.fix(pool, numbers[0], topic="a/#")


async def test_held_messages_are_released_in_order(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'hold')")
    pipeline = await make_pipeline()
    # Two values for one instant, now and then: what came first must win.
    messages = [v1("a", n // 2 % 60, (f"p{n // 120}", n), ("x", n)) for n in range(400)]
    for start in range(0, 400, 100):
        await submit(pipeline, messages[start : start + 100])
    await submit(pipeline, [v1("other", 1, ("t", 1))])
    assert (await total(pool))["held"] == 801
    await agrees(pool)
    await pool.execute("update caudal.device set status = 'active' where name = 'a'")
    assert await release_held(pool, pipeline, "acme", "a") == 400
    assert await release_held(pool, pipeline, "acme", "a") == 0
    first: dict[tuple[str, int], int] = {}
    for n in range(400):
        for name in (f"p{n // 120}", "x"):
            first.setdefault((name, n // 2 % 60), n)
    rows = await pool.fetch("select point_id, extract(second from ts)::int as s, v_num from ts_measure")
    assert {(row["point_id"], row["s"]): int(row["v_num"]) for row in rows} == first
    sums = await total(pool)
    assert (sums["held"], sums["received"], sums["stored"]) == (1, 801, len(first))
    await agrees(pool)


async def test_a_device_still_in_quarantine_loses_nothing(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'hold')")
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", n, ("t", n)) for n in range(10)])
    await release_held(pool, pipeline, "acme", "a")
    assert await pool.fetchval("select count(*) from caudal.held_message") == 10
    await agrees(pool)
    with pytest.raises(NotFound):
        await release_held(pool, pipeline, "nobody", "a")


async def test_two_releases_at_once_leave_each_dead_letter_once(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], database_url: str
) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'hold')")
    pipelines = [await make_pipeline(), await make_pipeline()]
    messages = [v1("a", n % 60, (f"p{n // 60}", n), ("bad", f"warm {n}")) for n in range(300)]
    await submit(pipelines[0], messages)
    await pool.execute("update caudal.device set status = 'active' where name = 'a'")
    others = [await asyncpg.create_pool(database_url, min_size=1, max_size=2) for _ in range(2)]
    counts = await asyncio.gather(
        *(release_held(others[n % 2], pipelines[n % 2], "acme", "a") for n in range(6))
    )
    for own in others:
        await own.close()
    assert sum(counts) == 300
    sums = await total(pool)
    assert (sums["received"], sums["stored"], sums["dead"], sums["duplicates"]) == (600, 300, 300, 0)
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 300
    await agrees(pool)


async def test_a_release_and_a_rejection_at_once_share_nothing(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("insert into caudal.tenant(name, unknown_devices) values ('acme', 'hold')")
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", n % 60, (f"p{n // 60}", n)) for n in range(300)])
    number = await pool.fetchval("update caudal.device set status = 'active' where name = 'a' returning id")

    async def reject() -> int:
        async with db.tenant_transaction(pool, "acme") as connection:
            return await connection.fetchval("select caudal.reject_held($1)", number)

    released, rejected = await asyncio.gather(release_held(pool, pipeline, "acme", "a"), reject())
    assert released + rejected == 300
    sums = await total(pool)
    assert (sums["stored"], sums["dead"], sums["held"]) == (released, rejected, 0)
    await agrees(pool)
