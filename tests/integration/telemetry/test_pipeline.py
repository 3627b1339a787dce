"""The pipeline against a real database, where things go wrong: refusals, limits, policies, collisions."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import asyncpg
import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.mqtt import packets as pk
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.loadclient import LoadFleet
from caudal.mqtt.ports import Inbound
from caudal.mqtt.settings import EndpointSettings
from caudal.registry.directory import Directory
from caudal.telemetry import ledger
from caudal.telemetry.batch import Dead, Tally, Told
from caudal.telemetry.submit import Message, Outcome, submit

from .conftest import MakePipeline, OpenHooks
from .test_submit import ANYONE, v1

SUMS = ("received", "stored", "duplicates", "dead", "held", "empty")


async def agrees(pool: asyncpg.Pool[Any]) -> None:
    async with pool.acquire() as connection:
        assert all(line.agrees for line in await ledger.sums(connection))
        checks = await ledger.verify(connection)
    assert [check for check in checks if not check.agrees] == []


def at(moment: str, device: str = "a", value: float = 1, point: str = "t") -> Message:
    """One point, measured at `moment`."""
    body = {"schema": "v1", "ts": moment, "points": [{"name": point, "t": "num", "v": value}]}
    return f"traksense/acme/plant/{device}/telem", json.dumps(body).encode(), ANYONE


def dead(outcomes: list[Outcome]) -> list[str]:
    return [letter.reason for outcome in outcomes for letter in outcome.dead]


async def test_a_row_that_the_database_refuses_stands_alone(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 0, *((f"p{n}", n + 0.5) for n in range(10)))])
    await pool.execute("alter table caudal.sample add constraint unlucky check (v_num <> 13)")
    messages = [v1("a", n % 60, *((f"p{p}", n * 10 + p) for p in range(10))) for n in range(1, 60)]
    outcomes = await submit(pipeline, messages)
    assert dead(outcomes) == ["storage"]
    assert outcomes[0].tally.stored == 9
    assert sum(outcome.tally.stored for outcome in outcomes) == 589
    assert await pool.fetchval("select count(*) from caudal.sample") == 599
    await agrees(pool)


async def test_a_message_of_one_refused_number_is_a_dead_letter(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    await pool.execute("update caudal.rollup_state set threshold = '2025-01-01'")
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 0, ("t", 0))])
    await submit(pipeline, [v1("a", 1, ("t", 1))])  # from here on it is known by heart
    await pool.execute("alter table caudal.sample add constraint unlucky check (v_num <> 13)")
    outcomes = await submit(pipeline, [v1("a", n, ("t", n)) for n in range(2, 40)])
    assert dead(outcomes) == ["storage"]
    assert sum(outcome.tally.stored for outcome in outcomes) == 37
    assert await pool.fetchval("select count(*) from caudal.dead_letter") == 1
    await agrees(pool)


async def test_a_database_that_stands_still_stops_the_doors_and_nothing_else(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], life: Lifecycle
) -> None:
    pipeline = await make_pipeline(ingest_queue_max=300, ingest_batch_size=50)
    endpoint = Endpoint(EndpointSettings(port=0), pipeline, OpenHooks())
    await endpoint.start()
    life.on_stop("endpoint", endpoint.close)
    paused = asyncio.Event()
    check = pipeline.queue.check

    def checked() -> None:
        check()
        if not pipeline.accepting:
            paused.set()

    pipeline.queue.check = checked  # type: ignore[method-assign]
    fleet = LoadFleet(
        "127.0.0.1", endpoint.port, [pk.Connect(f"c{n}", version=5) for n in range(4)], window=1000
    )
    await fleet.open()
    sources = [
        [at(f"2025-10-07T15:{n // 60:02}:{n % 60:02}Z", f"d{c}")[:2] for n in range(1500)] for c in range(4)
    ]
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("lock table caudal.ledger in access exclusive mode")
        running = asyncio.create_task(fleet.run(sources))
        async with asyncio.timeout(20):
            await paused.wait()
        before = fleet.totals.acked
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        # CONNECT of MQTT 3.1.1 with the client id "k", then PINGREQ: answered as if nothing were wrong.
        writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01k" + b"\xc0\x00")
        async with asyncio.timeout(30):
            assert await reader.readexactly(6) == b"\x20\x02\x00\x00\xd0\x00"
        writer.close()
        # Bounded: by the limit, and what one read of each connection may have brought beyond it.
        assert pipeline.messages <= 300 + 4 * 1000
        assert fleet.totals.acked == before
        assert not running.done()
        await transaction.rollback()
    async with asyncio.timeout(60):
        totals = await running
    await fleet.close()
    assert (totals.acked, totals.reconnects, totals.lost) == (6000, 0, 0)
    assert pipeline.messages == 0
    await agrees(pool)


async def test_limits_of_a_tenant(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute("insert into caudal.tenant(name, max_series) values ('acme', 1000)")
    pipeline = await make_pipeline()
    outcomes = await submit(pipeline, [v1(f"d{n % 10}", n // 10 % 60, (f"name {n}", n)) for n in range(3000)])
    assert sum(outcome.tally.stored for outcome in outcomes) == 1000
    assert set(dead(outcomes)) == {"too_large"}
    assert await pool.fetchval("select count(*) from caudal.series") == 1000
    huge: Message = ("traksense/acme/plant/d0/telem", b"[" + b"1," * 5_000_000 + b"1]", ANYONE)
    assert dead(await submit(pipeline, [huge])) == ["too_large"]
    assert await pool.fetchval("select max(length(payload)) from caudal.dead_letter") > 10_000_000
    await agrees(pool)


async def test_a_tenant_with_all_its_series_is_not_asked_about_for_each_message(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute("insert into caudal.tenant(name, max_series) values ('acme', 1)")
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 0, ("t", 1))])
    asked = 0
    ensure = Directory.ensure

    async def counted(self: Directory, wanted: Any) -> None:
        nonlocal asked
        asked += len(wanted)
        await ensure(self, wanted)

    monkeypatch.setattr(Directory, "ensure", counted)
    for second in range(1, 31):
        outcomes = await submit(pipeline, [v1("a", second, ("t", 1), (f"more {second}", 2))])
        assert dead(outcomes) == ["too_large"]
        assert outcomes[0].tally.stored == 1
    assert 1 <= asked <= 10
    # More room is known of at once, as any change of the registry is.
    await pool.execute("update caudal.tenant set max_series = 2")
    for _ in range(100):
        outcomes = await submit(pipeline, [v1("a", 31, ("one more", 2))])
        if not dead(outcomes):
            break
        await asyncio.sleep(0.05)
    assert not dead(outcomes)
    await agrees(pool)


async def test_policies_for_the_unknown(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    await pool.execute(
        "insert into caudal.tenant(name, unknown_devices, status) values"
        " ('acme', 'refuse', 'active'), ('held', 'hold', 'active'), ('gone', 'register', 'suspended')"
    )
    pipeline = await make_pipeline(unknown_tenants="refuse")
    topics = [f"traksense/{tenant}/plant/a/telem" for tenant in ("acme", "held", "gone", "nobody")]
    outcomes = await submit(pipeline, [(topic, v1("a", 1, ("t", 1))[1], ANYONE) for topic in topics])
    assert dead(outcomes) == ["unknown_device", "unknown_tenant", "unknown_tenant"]
    assert [outcome.tally.held for outcome in outcomes] == [0, 1, 0, 0]
    await agrees(pool)


async def test_duplicates_and_conflicts_in_one_batch(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    first, other = v1("a", 1, ("t", 1), ("u", 1)), v1("a", 1, ("t", 2), ("u", 1))
    outcomes = await submit(pipeline, [first, first, other, first])
    assert [(o.tally.stored, o.tally.duplicates, o.tally.dead) for o in outcomes] == [
        (2, 0, 0), (0, 2, 0), (0, 1, 1), (0, 2, 0),
    ]  # fmt: skip
    assert dead(outcomes) == ["conflict"]
    await agrees(pool)


async def test_two_writers_over_the_same_rows(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    """Same rows, other orders, other values: nobody dies of a deadlock, and every key is there once."""
    pipelines = [await make_pipeline(ingest_batch_size=40) for _ in range(2)]
    await submit(pipelines[0], [v1("a", 0, ("t", -1))])
    moments = [f"2025-10-07T{n // 60:02}:{n % 60:02}:00Z" for n in range(400)]
    chance = random.Random(7)
    rounds = []
    for value in range(4):
        messages = [at(moment, value=1 if n % 2 else value) for n, moment in enumerate(moments)]
        chance.shuffle(messages)
        rounds.append(submit(pipelines[value % 2], messages))
    outcomes = [outcome for done in await asyncio.gather(*rounds) for outcome in done]
    assert sum(outcome.tally.stored for outcome in outcomes) == 400
    assert sum(outcome.tally.duplicates for outcome in outcomes) == 600
    assert sum(outcome.tally.dead for outcome in outcomes) == 600
    assert set(dead(outcomes)) == {"conflict"}
    await agrees(pool)


async def test_any_instant_finds_a_place(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    moments = [
        "1970-01-02",
        "1999-12-31",
        "2003-06-01",
        "2024-02-29",
        "2025-10-07",
        "2100-01-01",
        "9999-12-31",
    ]
    outcomes = await submit(pipeline, [at(f"{moment}T12:00:00Z") for moment in moments])
    assert [outcome.tally.stored for outcome in outcomes] == [1] * len(moments)
    rows = await pool.fetch("select ts::date::text as day, qual from ts_measure order by ts")
    assert [row["day"] for row in rows] == moments
    assert [row["qual"] for row in rows][-2:] == [1, 1]
    assert dead(await submit(pipeline, [at("0000-01-01T00:00:00Z")])) == ["timestamp"]
    await agrees(pool)


async def test_the_registry_changes_without_a_restart(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]
) -> None:
    pipeline = await make_pipeline()
    await submit(pipeline, [v1("a", 0, ("t", 1))])

    async def becomes(change: str, expected: str) -> None:
        await pool.execute(change)
        async with asyncio.timeout(30):
            for second in range(1, 10_000):
                moment = f"2025-10-07T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
                outcome = (await submit(pipeline, [at(moment, value=second)]))[0]
                if getattr(outcome.tally, expected):
                    return

    await becomes("update caudal.device set status = 'quarantined'", "held")
    await becomes("update caudal.device set status = 'active'", "stored")
    await becomes("update caudal.device set format = 'senml'", "dead")
    await agrees(pool)


async def test_what_devices_write_is_data(make_pipeline: MakePipeline, pool: asyncpg.Pool[Any]) -> None:
    pipeline = await make_pipeline()
    names = ["x'; drop table caudal.sample; --", "ção ☃ 温度", "a\tb", "%s{0}$1", "é" * 256, "\u202e"]
    outcomes = await submit(pipeline, [v1(f"dev{n}", n, (name, n)) for n, name in enumerate(names)])
    assert [outcome.tally.stored for outcome in outcomes] == [1] * len(names)
    assert {row["point_id"] for row in await pool.fetch("select point_id from ts_measure")} == set(names)
    topic = "traksense/ac'me/pl\"ant/de;vice/telem"
    odd: list[Message] = [
        (topic, v1("a", 1, ("nul\0name", 1))[1], ANYONE),
        (topic, v1("a", 1, ("half \ud800", 1))[1], ANYONE),
        (topic, b"\0" * 100, ANYONE),
        (topic, b"", ANYONE),
        ("traksense/a\0b/c/d/telem", b"{}", ANYONE),
        (topic, b'{"schema":"v1","ts":"2025-10-07T15:30:00Z","points":[{"name":"n","v":1e999}]}', ANYONE),
        (topic, b"[" * 50_000, ANYONE),
    ]
    for message in odd:
        outcome = (await submit(pipeline, [message]))[0]
        assert outcome.tally.dead >= 1, message[1][:60]
    assert (await submit(pipeline, [v1("after", 1, ("t", 1))]))[0].tally.stored == 1
    await agrees(pool)


class Ear(Told):
    """Hears what its message came to."""

    principal = ANYONE
    client_id = "ear"

    def __init__(self) -> None:
        self.tally: Tally | None = None

    def tell(self, message: Inbound, outcome: Tally, dead: list[Dead]) -> None:
        self.tally = outcome

    def settle(self, messages: Any, reason: int = 0) -> None:
        assert self.tally is not None


def _any_message(chance: random.Random) -> tuple[str, bytes]:
    tenant, device = chance.choice(["acme", "held", "refused", "new"]), f"d{chance.randrange(4)}"
    base = f"traksense/{tenant}/s/{device}"
    kind = chance.randrange(12)
    if kind == 0:
        return chance.choice(["x/y", f"{base}/cmd", f"{base}/telem"]), chance.choice(
            [b"{", b"\xff", b"", b"[]"]
        )
    if kind == 1:
        ack = {"schema": "v1", "cmd_id": f"c{chance.randrange(5)}", "ok": chance.random() < 0.5}
        return f"{base}/ack", json.dumps(ack).encode()
    if kind == 2:
        event = {"schema": "v1", "event_type": "door", "ts": f"2025-10-07T15:30:0{chance.randrange(5)}Z"}
        return f"{base}/event", json.dumps(event).encode()
    if kind == 3:
        topic = f"tenants/{tenant}/sites/s/assets/gw/telemetry"
        record = {"bn": device, "bt": 1_759_851_000 + chance.randrange(5), "n": "A", "u": "Cel"}
        return topic, json.dumps([{**record, "v": chance.randrange(3)}, {"n": "B", "v": "x"}]).encode()
    points = [
        {
            "name": f"p{chance.randrange(4)}",
            "v": chance.choice([1, 2, None, "warm"]),
            "u": chance.choice(["C", "F"]),
        }
        for _ in range(chance.randrange(4))
    ]
    body = {"schema": "v1", "ts": f"2025-10-07T15:30:{chance.randrange(20):02}Z", "points": points}
    return f"{base}/telem", json.dumps(body).encode()


@pytest.mark.parametrize("seed", range(6))
async def test_the_ledger_under_any_mixture(
    make_pipeline: MakePipeline, pool: asyncpg.Pool[Any], seed: int
) -> None:
    """Whatever comes, sent again or not: parts add up for each message, and with every row there is."""
    await pool.execute(
        "insert into caudal.tenant(name, unknown_devices, max_series) values ('acme', 'register', 9),"
        " ('held', 'hold', 100), ('refused', 'refuse', 100)"
    )
    chance = random.Random(seed)
    pipeline = await make_pipeline(ingest_batch_size=chance.choice([1, 7, 800]))
    ears = []
    sent: list[tuple[str, bytes]] = []
    for _ in range(12):
        batch = []
        for _ in range(chance.randrange(1, 60)):
            again = bool(sent) and chance.random() < 0.3
            topic, payload = chance.choice(sent) if again else _any_message(chance)
            sent.append((topic, payload))
            ears.append(Ear())
            batch.append(Inbound(topic, payload, 1, False, again, 1, ears[-1], 1_800_000_000_000_000))
        pipeline.submit(batch)
        if chance.random() < 0.5:
            await pipeline.drained()
    await pipeline.drained()
    total = Tally()
    for ear in ears:
        assert ear.tally is not None
        assert ear.tally.agrees
        assert min(getattr(ear.tally, name) for name in SUMS) >= 0, ear.tally
        # Empty is what had nothing to say, and never what got lost on the way.
        assert not ear.tally.empty or ear.tally.received == 1
        total.add(ear.tally)
    row = await pool.fetchrow(f"select {', '.join(f'sum({n})::int as {n}' for n in SUMS)} from caudal.ledger")
    assert row is not None
    assert dict(row) == {name: getattr(total, name) for name in SUMS}
    await agrees(pool)
