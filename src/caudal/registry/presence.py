"""Online means: last heard within the profile's heartbeat, by our clock at receipt.

Ingest hands over what it heard every few seconds; one statement dates every change. A device that fell silent
went offline when its heartbeat ran out, also when that is noticed later; a backlog with old timestamps counts
by its receipt, so it makes nothing look alive.

A device that talks all the time is written every quarter of a minute: fifteen thousand that talk every second
would otherwise be seven thousand rows a second, in bursts that everything else waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import msgspec

from caudal.core import logs

log = logs.get("presence")

DEFAULT_HEARTBEAT = 300
"""Seconds, for a device without a profile. Gateways have a column of their own, with the same default."""

REFRESH_SECONDS = 15.0
"""How long what is known of a device that goes on talking may be out of date; for some, half of that."""

HASTY_SECONDS = 4 * REFRESH_SECONDS
"""Whose heartbeat is shorter is written each time: it might be taken for silent otherwise."""

AT_ONCE = 1000
"""Rows in one statement; to prepare more would hold up the loop that devices are answered from."""

Thing = Literal["device", "gateway"]

_HEARTBEAT = {
    "device": "make_interval(secs => coalesce("
    f"(select p.heartbeat_seconds from caudal.profile p where p.id = d.profile_id), {DEFAULT_HEARTBEAT}))",
    "gateway": "make_interval(secs => d.heartbeat_seconds)",
}

_HEARD = """
with heard as (
  select d.id, d.tenant_id, d.is_online, d.last_heard, h.at, {heartbeat} as heartbeat
  from unnest($1::bigint[], $2::timestamptz[]) as h(id, at) join caudal.{table} d on d.id = h.id
  where d.last_heard is null or d.last_heard < h.at
  order by d.id for no key update of d
), changes as (
  -- It had fallen silent before, and nobody had noticed yet.
  select id, tenant_id, last_heard + heartbeat as at, false as online from heard
    where is_online and last_heard + heartbeat < at
  union all
  select id, tenant_id, at, true from heard where not is_online or last_heard + heartbeat < at
  union all
  -- What was heard is itself old by now.
  select id, tenant_id, at + heartbeat, false from heard where at + heartbeat <= now()
), noted as (
  insert into caudal.presence(tenant_id, {table}_id, at, online)
  select tenant_id, id, at, online from changes order by at, online returning 1
), done as (
  update caudal.{table} d set last_heard = h.at, is_online = h.at + h.heartbeat > now()
  from heard h where h.id = d.id returning 1
)
select (select count(*) from noted) as changes, (select count(*) from done) as heard,
       array(select id from heard where heartbeat < make_interval(secs => $3)) as hasty"""

_OVERDUE = """
with silent as (
  select d.id, d.tenant_id, d.last_heard + {heartbeat} as at from caudal.{table} d
  where d.is_online and d.last_heard + {heartbeat} <= now() order by d.id for no key update of d
), noted as (
  insert into caudal.presence(tenant_id, {table}_id, at, online) select tenant_id, id, at, false from silent
), done as (
  update caudal.{table} d set is_online = false from silent s where s.id = d.id returning 1
)
select count(*) from done"""

_QUERIES = {
    thing: (
        _HEARD.format(table=thing, heartbeat=_HEARTBEAT[thing]),
        _OVERDUE.format(table=thing, heartbeat=_HEARTBEAT[thing]),
    )
    for thing in ("device", "gateway")
}


async def heard(connection: Any, thing: Thing, at: Mapping[int, datetime]) -> int:
    """Note when each device (or gateway; ids) was last heard, by receipt; returns how many changed state.

    One statement for all of them, in order of id, so that two workers never wait for each other crosswise.
    """
    return int((await _note(connection, thing, at))["changes"]) if at else 0


async def _note(connection: Any, thing: Thing, at: Mapping[int, datetime]) -> asyncpg.Record:
    ids = sorted(at)
    values = [at[number] for number in ids]
    row: asyncpg.Record = await connection.fetchrow(_QUERIES[thing][0], ids, values, HASTY_SECONDS)
    return row


async def overdue(connection: Any) -> int:
    """Mark offline whatever has been silent for longer than its heartbeat; returns how many."""
    return sum([int(await connection.fetchval(_QUERIES[thing][1])) for thing in ("device", "gateway")])


class _Collected:
    """What was heard of one kind of thing and is not written yet, and when each may be written again."""

    __slots__ = ("due", "pending")

    def __init__(self) -> None:
        self.pending: dict[int, int] = {}
        self.due: dict[int, float] = {}

    def ripe(self, now: float) -> list[tuple[int, int]]:
        """What to write now, in order of id; `now` is of the monotonic clock."""
        due = self.due.get
        return sorted([(number, at) for number, at in self.pending.items() if due(number, 0.0) <= now])

    def written(self, part: list[tuple[int, int]], hasty: set[int], now: float) -> None:
        for number, at in part:
            if self.pending.get(number) == at:
                del self.pending[number]
            # Spread, or those that came at once would come back at once, for ever.
            pause = REFRESH_SECONDS * (0.5 + (number * 2_654_435_761 >> 8 & 1023) / 2048)
            self.due[number] = 0.0 if number in hasty else now + pause


class Presence:
    """Collects who was heard and writes it every few seconds. `hear` is cheap enough for each batch.

    Bounded by the number of devices there are: a device heard a thousand times is one entry.
    """

    def __init__(self, pool: asyncpg.Pool[Any], *, every_seconds: float = 2.0) -> None:
        self._pool = pool
        self._every = every_seconds
        self._collected: dict[Thing, _Collected] = {"device": _Collected(), "gateway": _Collected()}

    def hear(self, devices: Mapping[int, int], gateways: Mapping[int, int] | None = None) -> None:
        """Who was heard, and when: ids to receipt in microseconds since the epoch. Later calls are later."""
        self._collected["device"].pending.update(devices)
        if gateways:
            self._collected["gateway"].pending.update(gateways)

    async def flush(self, *, everything: bool = False) -> None:
        """Write what is due (or all there is), and mark the silent. What cannot be written is kept."""
        async with self._pool.acquire() as connection:
            for thing, collected in self._collected.items():
                ripe = collected.ripe(float("inf") if everything else time.monotonic())
                for start in range(0, len(ripe), AT_ONCE):
                    part = ripe[start : start + AT_ONCE]
                    row = await _note(connection, thing, {number: _time(at) for number, at in part})
                    collected.written(part, set(row["hasty"]), time.monotonic())
            await overdue(connection)

    async def close(self) -> None:
        """Write what is left, if the database is there to take it."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            async with asyncio.timeout(2):
                await self.flush(everything=True)

    async def run(self) -> None:
        """Flush for ever; a database that is away is waited for."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.flush()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning(
                    "presence could not be written; it will be with the next round", error=repr(error)
                )


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


class Availability(msgspec.Struct):
    """How long something was online in a span. `ratio` is None when the span holds no observed time."""

    start: str
    end: str
    observed_seconds: float
    online_seconds: float
    ratio: float | None
    changes: list[Change]


class Change(msgspec.Struct):
    """One change of state."""

    at: str
    online: bool


CHANGES_MAX = 1000

_AVAILABILITY = """
with thing as (
  select d.created_at, least(now(), $3::timestamptz) as until,
         case when d.is_online then d.last_heard + {heartbeat} end as silent
  from caudal.{table} d where d.id = $1::bigint
), span as (
  -- Of the piece that is still open, no more is known to be good than a heartbeat from what was last heard.
  select greatest($2::timestamptz, created_at) as start, until, least(until, silent) as good from thing
), marks as (
  (select span.start as at, p.online from span
     cross join lateral (select online from caudal.presence where {table}_id = $1::bigint and at <= span.start
                         order by at desc, id desc limit 1) p)
  union all
  (select p.at, p.online from caudal.presence p, span
     where p.{table}_id = $1::bigint and p.at > span.start and p.at < span.until)
), pieces as (
  select online, at, lead(at) over (order by at, online) as next from marks
)
select span.start, span.until,
  greatest(0, extract(epoch from span.until - span.start))::float8 as observed,
  (select coalesce(sum(greatest(0, extract(epoch from coalesce(next, span.good) - at))), 0)
   from pieces where online)::float8 as online
from span"""


async def availability(
    connection: Any, thing: Thing, number: int, start: datetime, end: datetime
) -> Availability | None:
    """Availability from `start` to `end`, from when the thing was made and up to now; None: no such thing."""
    query = _AVAILABILITY.format(table=thing, heartbeat=_HEARTBEAT[thing])
    row = await connection.fetchrow(query, number, start, end)
    if row is None:
        return None
    rows = await connection.fetch(
        f"select at, online from caudal.presence where {thing}_id = $1::bigint and at >= $2 and at < $3"
        f" order by at, id limit {CHANGES_MAX}",
        number, start, end,
    )  # fmt: skip
    observed, online = row["observed"], row["online"]
    return Availability(
        start=row["start"].isoformat(),
        end=row["until"].isoformat(),
        observed_seconds=observed,
        online_seconds=online,
        ratio=online / observed if observed > 0 else None,
        changes=[Change(each["at"].isoformat(), each["online"]) for each in rows],
    )
