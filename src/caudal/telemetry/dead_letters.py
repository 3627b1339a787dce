"""Dead letters for people: find them, read them, correct them, put them back, or discard them.

Reading, `fix` and `discard` take any connection; with one of `db.tenant_transaction` they see and touch that
tenant's alone. How they are put back is in `replays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.registry.paging import PAGE_MAX, Page, Where
from caudal.telemetry.locate import locate

Status: TypeAlias = Literal["open", "replayed", "discarded"]

LOG_FORMAT = "log"
"""What the message log keeps here beside telemetry: records, which go back on their topics."""

COLUMNS = """
id, tenant_name as tenant, device_name as device, topic, reason, sentence, pointer, format, cause, status,
received, stored, settled_at, settled_by, items, length(payload) as size,
fixed_payload is not null or fixed_topic is not null as fixed, outcome::text as outcome
"""

CAUSES = """
select cause, min(reason) as reason, (array_agg(sentence order by id desc))[1] as sentence,
       (array_agg(id order by id desc))[1] as newest, count(*) as letters,
       count(distinct (topic, digest)) as messages,
       count(distinct tenant_name) as tenants, count(distinct (tenant_name, device_name)) as devices,
       min(received) as first, max(received) as last
from caudal.dead_letter{where} group by cause order by count(*) desc, cause limit {limit}
"""

SIBLINGS = """
select s.id from caudal.dead_letter d
join caudal.dead_letter s on s.digest = d.digest and s.topic = d.topic and s.status = 'open'
where d.id = any($1::bigint[])
"""


class Letter(msgspec.Struct):
    """A dead letter as lists show it. `device` is the topic's; `size` is the payload's, in bytes."""

    id: int
    tenant: str | None
    device: str | None
    topic: str
    reason: str
    sentence: str
    pointer: str
    format: str | None
    cause: str
    status: Status
    received: datetime
    stored: datetime
    settled_at: datetime | None
    settled_by: str | None
    items: int
    """How many of the message's parts it stands for."""
    size: int
    fixed: bool
    outcome: msgspec.Raw | None
    """What its replay came to: {stored, duplicates, dead, held, dead_letters}."""


class Cause(msgspec.Struct):
    """Letters that are alike but for names, numbers and places in lists."""

    cause: str
    reason: str
    sentence: str
    """Of the newest."""
    newest: int
    letters: int
    messages: int
    tenants: int
    devices: int
    first: datetime
    last: datetime


class Shown(msgspec.Struct):
    """One letter with its bytes, and where in them the offending place is."""

    letter: Letter
    payload: bytes
    start: int | None
    """Bytes `start` to `end` of the payload are at fault; None where the whole is."""
    end: int | None
    exact: bool
    """False when what is marked lacks the member that is wanted."""
    fixed_topic: str | None
    fixed_payload: bytes | None
    siblings: list[int]
    """The other open letters of the same message."""

    @property
    def text(self) -> str | None:
        """The payload as text, or None where it is none."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return None


class Filter(msgspec.Struct, frozen=True):
    """Which letters; all that is given must hold."""

    reason: str | None = None
    tenant: str | None = None
    topic: str | None = None
    """The topic, or one with `*` for any run of characters."""
    cause: str | None = None
    status: Status | None = "open"
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> Where:
        """As SQL."""
        found = Where()
        found.add("reason = {}", self.reason)
        found.add("tenant_name = {}", self.tenant)
        if self.topic is not None and "*" in self.topic:
            escaped = self.topic.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            found.add("topic like {}", escaped.replace("*", "%"))
        else:
            found.add("topic = {}", self.topic)
        found.add("cause = {}", self.cause)
        found.add("status = {}", self.status)
        found.add("received >= {}", self.since)
        found.add("received < {}", self.until)
        return found


def _made(row: Any) -> Letter:
    values = dict(row)
    outcome = values.pop("outcome")
    return Letter(**values, outcome=None if outcome is None else msgspec.Raw(outcome.encode()))


async def find(
    connection: Any, wanted: Filter, *, before: int | None = None, limit: int = 50
) -> Page[Letter]:
    """A page of letters, the newest first; `before` is the cursor that the page before gave (`after`)."""
    limit = max(1, min(limit, PAGE_MAX))
    where = wanted.where()
    where.add("id < {}::bigint", before)
    rows = await connection.fetch(
        f"select {COLUMNS} from caudal.dead_letter{where} order by id desc limit {limit + 1}",
        *where.arguments,
    )
    items = [_made(row) for row in rows[:limit]]
    return Page(items, items[-1].id if len(rows) > limit else None)


async def causes(connection: Any, wanted: Filter, *, limit: int = 50) -> list[Cause]:
    """Letters by cause, the most frequent first."""
    where = wanted.where()
    limit = max(1, min(limit, PAGE_MAX))
    rows = await connection.fetch(CAUSES.format(where=where, limit=limit), *where.arguments)
    return [Cause(**row) for row in rows]


async def choose(connection: Any, wanted: Filter, *, limit: int | None = None) -> list[int]:
    """The numbers of all that `wanted` takes in, the oldest first: in the order they came."""
    where = wanted.where()
    end = f" limit {int(limit)}" if limit is not None else ""
    rows = await connection.fetch(
        f"select id from caudal.dead_letter{where} order by id{end}", *where.arguments
    )
    return [row["id"] for row in rows]


async def show(connection: Any, number: int) -> Shown:
    """One letter, whole. Raises NotFound."""
    row = await connection.fetchrow(
        f"select {COLUMNS}, payload, fixed_topic, fixed_payload from caudal.dead_letter"
        " where id = $1::bigint",
        number,
    )
    if row is None:
        raise NotFound(f"There is no dead letter {number}. `caudal dead-letters list` shows those there are.")
    values = dict(row)
    payload, topic, fixed = (values.pop(name) for name in ("payload", "fixed_topic", "fixed_payload"))
    letter = _made(values)
    span = locate(payload, letter.pointer)
    siblings = [row["id"] for row in await connection.fetch(SIBLINGS, [number]) if row["id"] != number]
    return Shown(
        letter, payload, span.start if span else None, span.end if span else None,
        span.exact if span else False, topic, fixed, sorted(siblings),
    )  # fmt: skip


async def fix(
    connection: Any,
    number: int,
    *,
    payload: bytes | None = None,
    topic: str | None = None,
    records: bool = False,
) -> list[int]:
    """Correct a message: its payload, its topic, or both; returns the letters that it concerns.

    A message that left several letters is corrected for all of them. What came stays as it came, beside it.
    `records` allows the same for a record of the message log, its payload alone. That is for operators: a
    record says of itself whose it is, so whoever writes one could speak for another tenant.
    Raises NotFound, Conflict when it is settled already, InvalidInput.
    """
    if payload is None and topic is None:
        raise InvalidInput("Give a corrected payload, a corrected topic, or both.")
    if topic is not None and (not topic or "\0" in topic or any(sign in topic for sign in "+#")):
        raise InvalidInput("The corrected topic is empty, or holds a wildcard or a NUL.")
    await _must_be_open(connection, number, record_too=records and topic is None)
    rows = await connection.fetch(
        "update caudal.dead_letter set fixed_payload = coalesce($2, fixed_payload),"
        f" fixed_topic = coalesce($3, fixed_topic) where id in ({SIBLINGS}) returning id",
        [number],
        payload,
        topic,
    )
    return sorted(row["id"] for row in rows)


async def discard(connection: Any, numbers: Sequence[int], *, by: str) -> int:
    """Settle letters that nobody will put back; returns how many were open. They stay until they expire."""
    return int(
        await connection.fetchval(
            "with gone as (update caudal.dead_letter set status = 'discarded', settled_at = now(),"
            " settled_by = $2 where id = any($1::bigint[]) and status = 'open' returning 1)"
            " select count(*) from gone",
            list(numbers),
            by,
        )
    )


async def _must_be_open(connection: Any, number: int, *, record_too: bool) -> None:
    row = await connection.fetchrow(
        "select status, format from caudal.dead_letter where id = $1::bigint for update", number
    )
    if row is None:
        raise NotFound(f"There is no dead letter {number}. `caudal dead-letters list` shows those there are.")
    if row["status"] != "open":
        raise Conflict(f"Dead letter {number} is {row['status']} already; nothing is left to do with it.")
    if row["format"] == LOG_FORMAT and not record_too:
        raise Conflict(
            f"Dead letter {number} is a record of the message log: `caudal dead-letters fix` corrects its"
            " payload, nothing its topic."
        )
