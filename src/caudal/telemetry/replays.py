"""Putting back: dead letters through the whole path once more, and what a device sent before its claim.

Both submit to the same pipeline as a device's publish, and settle afterwards, in one transaction with the
ledger's correction. Whoever is interrupted in between leaves the message where it was; doing it again finds
what is stored already, and counts it as duplicates. Connections are ingest's: they see every tenant.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal
from weakref import WeakKeyDictionary

import asyncpg
import msgspec

from caudal.core.errors import NotFound
from caudal.core.eventlog import deadletters
from caudal.mqtt.ports import Principal
from caudal.telemetry.dead_letters import LOG_FORMAT
from caudal.telemetry.others import EPOCH, digest
from caudal.telemetry.pipeline import Pipeline
from caudal.telemetry.submit import Outcome, submit

CHUNK = 200

OPEN = """
select id, coalesce(fixed_topic, topic) as topic, coalesce(fixed_payload, payload) as payload, topic as was,
       digest, received, reason, pointer, fixed_payload is not null or fixed_topic is not null as fixed
from caudal.dead_letter
where status = 'open' and format is distinct from $2
  and (digest, topic) in (select digest, topic from caudal.dead_letter where id = any($1::bigint[])
                          and ($3::text is null or tenant_name = $3))
order by id
"""

SETTLED = """
update caudal.dead_letter d set status = 'replayed', settled_at = now(), settled_by = $3, outcome = w.o::jsonb
from unnest($1::bigint[], $2::text[]) as w(id, o) where d.id = w.id and d.status = 'open'
returning coalesce(d.tenant_id, 0) as tenant, (d.stored at time zone 'UTC')::date as day, d.items
"""

# Refused again for the same reason in the same place: the letter that is there already stands for it.
TWINS = """
delete from caudal.dead_letter where id = any($1::bigint[])
returning coalesce(tenant_id, 0) as tenant, (stored at time zone 'UTC')::date as day, items
"""

CORRECT = """
insert into caudal.ledger as l (day, tenant_id, writer, received, duplicates, dead, held, first_received,
                                last_received)
select d, t, 'replay', r, u, x, h, now(), now()
from unnest($1::date[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
  as w(d, t, r, u, x, h)
on conflict (day, tenant_id, writer) do update set
  received = l.received + excluded.received, duplicates = l.duplicates + excluded.duplicates,
  dead = l.dead + excluded.dead, held = l.held + excluded.held, last_committed = now()
"""

HELD = """
select h.id, h.topic, h.payload, h.received from caudal.held_message h
where h.tenant_id = $1 and h.device_name = $2 and h.id <= $3 order by h.id limit $4
"""

TURN = "select pg_advisory_xact_lock(hashtextextended('caudal replay', 0))"
HELD_TURN = "select caudal.held_turn($1, $2)"


class Replayed(msgspec.Struct):
    """What became of one letter: `replayed`; `refused` and still open; `settled` before and left alone."""

    id: int
    result: Literal["replayed", "refused", "settled"]
    stored: int = 0
    """Of its message, as are the next ones; letters of one message show the same."""
    duplicates: int = 0
    dead: int = 0
    held: int = 0
    sentence: str = ""
    """Why it is refused still, or what it left."""
    dead_letters: list[int] = msgspec.field(default_factory=list)
    """New ones, that a corrected message left."""


class _Message(msgspec.Struct):
    """A message to put back, and the letters it had left."""

    topic: str
    payload: bytes
    received: int
    fixed: bool
    letters: list[tuple[int, str, str]]
    """(number, reason, pointer)"""


class _Corrections:
    """Changes to the ledger, by the day and tenant of what they correct."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[Any, int, str]] = Counter()

    def add(self, row: Any, **changes: int) -> None:
        """`row` has `day` and `tenant`."""
        for name, change in changes.items():
            self._sums[(row["day"], row["tenant"], name)] += change

    async def write(self, connection: Any) -> None:
        """In one order for everybody, so that two of us wait for each other in turn."""
        keys = sorted({key[:2] for key in self._sums})
        if keys:
            names = ("received", "duplicates", "dead", "held")
            columns = [[self._sums[(*key, name)] for key in keys] for name in names]
            await connection.execute(CORRECT, [day for day, _ in keys], [of for _, of in keys], *columns)


_turns: WeakKeyDictionary[Pipeline, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def _alone(
    pool: asyncpg.Pool[Any], pipeline: Pipeline, turn: str, *arguments: object
) -> AsyncIterator[Any]:
    """A transaction that no other chunk with the same `turn` overlaps, in this process or another.

    Between reading a message and settling it there is its way through the pipeline: two who read the same
    would each leave its dead letters, and each take the other's for a twin. One at a time in a process, so
    that those who wait hold no connection that the pipeline, for the one whose turn it is, may need.
    """
    async with (
        _turns.setdefault(pipeline, asyncio.Lock()),
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute(turn, *arguments)
        yield connection


def _microseconds(at: datetime) -> int:
    return round((at.astimezone(UTC) - EPOCH).total_seconds() * 1_000_000)


async def replay(
    pool: asyncpg.Pool[Any],
    pipeline: Pipeline,
    numbers: Sequence[int],
    *,
    by: str,
    tenant: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Replayed]:
    """Put dead letters back, the oldest first; returns what became of each, in that order.

    A message that left several letters goes once and settles them all. With `tenant` (a name) letters of
    others are none of ours. What was received stays the instant it was. Raises NotFound when none exists.
    """
    wanted = sorted(set(numbers))
    known = await pool.fetch(
        "select id, status from caudal.dead_letter where id = any($1::bigint[]) and ($2::text is null or"
        " tenant_name = $2)",
        wanted,
        tenant,
    )
    if wanted and not known:
        raise NotFound("There are no such dead letters. `caudal dead-letters list` shows those there are.")
    done: dict[int, Replayed] = {
        row["id"]: Replayed(row["id"], "settled") for row in known if row["status"] != "open"
    }
    waiting = sorted(row["id"] for row in known if row["status"] == "open")
    for start in range(0, len(waiting), CHUNK):
        for result in await _records_back(pool, waiting[start : start + CHUNK], by, tenant):
            done[result.id] = result
    for start in range(0, len(waiting), CHUNK):
        chunk = [number for number in waiting[start : start + CHUNK] if number not in done]
        async with _alone(pool, pipeline, TURN) as connection:
            for result in await _replay_some(connection, pipeline, chunk, by, tenant):
                done[result.id] = result
        progress(min(start + CHUNK, len(waiting)), len(waiting))
    for number in waiting:
        # Settled by somebody else meanwhile.
        done.setdefault(number, Replayed(number, "settled"))
    return [done[number] for number in sorted(done)]


async def _records_back(
    pool: asyncpg.Pool[Any], numbers: list[int], by: str, tenant: str | None
) -> list[Replayed]:
    """Those that are records of the message log, to their topics; the ledger knows nothing of them."""
    async with pool.acquire() as connection, connection.transaction():
        done = await deadletters.replay(connection, numbers, by=by, tenant=tenant)
    return [
        Replayed(one.id, "replayed", sentence="Back on its topic.")
        if one.problem is None
        else Replayed(one.id, "refused", sentence=one.problem)
        for one in done
    ]


async def _replay_some(
    connection: Any, pipeline: Pipeline, numbers: list[int], by: str, tenant: str | None
) -> list[Replayed]:
    messages: dict[tuple[str, bytes], _Message] = {}
    for row in await connection.fetch(OPEN, numbers, LOG_FORMAT, tenant):
        message = messages.setdefault(
            (row["was"], row["digest"]),
            _Message(row["topic"], row["payload"], _microseconds(row["received"]), row["fixed"], []),
        )
        message.letters.append((row["id"], row["reason"], row["pointer"]))
    if not messages:
        return []
    before = await connection.fetchval("select max(id) from caudal.dead_letter")
    chosen = list(messages.values())
    outcomes = await submit(
        pipeline,
        [(message.topic, message.payload, Principal(by)) for message in chosen],
        received=[message.received for message in chosen],
    )
    results: list[Replayed] = []
    marks = [digest(message.topic, message.payload) for message in chosen]
    fresh = await connection.fetch(
        "select id, digest, reason, pointer from caudal.dead_letter where digest = any($1)"
        " and id > $2 and status = 'open' order by id",
        marks,
        before,
    )
    settled: dict[int, str] = {}
    twins: list[int] = []
    for message, outcome, mark in zip(chosen, outcomes, marks, strict=True):
        left = [row for row in fresh if row["digest"] == mark]
        for number, reason, pointer in message.letters:
            result = _result(number, outcome)
            same = [row["id"] for row in left if (row["reason"], row["pointer"]) == (reason, pointer)]
            if same and not message.fixed:
                twins += same
                result.result = "refused"
            else:
                result.dead_letters = [row["id"] for row in left if message.fixed]
                settled[number] = _outcome_json(result)
            results.append(result)
    corrections = _Corrections()
    for row in await connection.fetch(SETTLED, list(settled), list(settled.values()), by):
        # It was received once: what it came to now is what it came to.
        corrections.add(row, received=-row["items"], dead=-row["items"])
    for row in await connection.fetch(TWINS, twins):
        corrections.add(row, dead=-row["items"], duplicates=row["items"])
    await corrections.write(connection)
    return results


def _result(number: int, outcome: Outcome) -> Replayed:
    tally = outcome.tally
    sentence = "; ".join(f"{dead.reason}: {dead.sentence}" for dead in outcome.dead[:3])
    return Replayed(
        number, "replayed", tally.stored, tally.duplicates, tally.dead, tally.held, sentence
    )  # fmt: skip


def _outcome_json(result: Replayed) -> str:
    names = ("stored", "duplicates", "dead", "held", "dead_letters")
    return msgspec.json.encode({name: getattr(result, name) for name in names}).decode()


async def release_held(
    pool: asyncpg.Pool[Any],
    pipeline: Pipeline,
    tenant: str,
    device: str,
    *,
    progress: Callable[[int], None] = lambda _done: None,
) -> int:
    """Send what `device` of `tenant` (names) sent while in quarantine through ingest, in the order it came.

    Returns the number of messages. To be called once the claim is committed; safe to call again after an
    interruption, and by two at once, who take turns. What names another device that is still in quarantine
    is held for that one again. Raises NotFound when there is no such tenant.
    """
    owner = await pool.fetchval("select id from caudal.tenant where name = $1", tenant)
    if owner is None:
        raise NotFound(f"There is no tenant {tenant!r}.")
    # The claim's notification may still be under way; with what we knew before, all would be held again.
    pipeline.forget(f"device:{owner}:{device}")
    # Not beyond what is there now: were the device put back into quarantine meanwhile, this would never end.
    last = await pool.fetchval(
        "select max(id) from caudal.held_message where tenant_id = $1 and device_name = $2", owner, device
    )
    done, size = 0, 1
    while last is not None:
        async with _alone(pool, pipeline, HELD_TURN, owner, device) as connection:
            rows = await connection.fetch(HELD, owner, device, last, size)
            if not rows:
                break
            await submit(
                pipeline,
                [(row["topic"], row["payload"], Principal(f"t:{tenant}:d:{device}")) for row in rows],
                received=[_microseconds(row["received"]) for row in rows],
            )
            corrections = _Corrections()
            for row in await connection.fetch(
                "delete from caudal.held_message where id = any($1::bigint[]) returning tenant_id as tenant,"
                " (stored at time zone 'UTC')::date as day, items",
                [row["id"] for row in rows],
            ):
                corrections.add(row, received=-row["items"], held=-row["items"])
            await corrections.write(connection)
        done += len(rows)
        progress(done)
        # The first alone, so that those behind it find its points known and keep their order in one batch.
        size = min(size * 4, CHUNK)
    return done
