"""The bytes of a device's messages, for as long as somebody wants to look at them.

What is stored are samples; the bytes they came in are not kept. Who opens a device's page asks for them:
ingest then copies what it commits of that device, for an hour, into a table that holds the newest few of each
and for a day. While nobody asks it costs one comparison a batch.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import suppress
from datetime import datetime
from struct import Struct
from typing import Any

import asyncpg
import msgspec

from caudal.core import logs
from caudal.telemetry.batch import Batch, Entry

log = logs.get("live")

LEASE_SECONDS = 3600
MAX_DEVICES = 200
"""Watched at once, over the whole installation; beyond it the newest wish takes the place of the oldest."""
MAX_SERIES = 5000
KEPT = 20
"""Messages of one device."""
PAYLOAD_MAX = 16_384
_ROOM = 500
# How a row begins (telemetry/rows.py): nine fields, the first of four bytes, the series.
_HEAD = rb"\x00\x09\x00\x00\x00\x04"
_series = Struct(">i")

_WATCHED = """
select w.device_id, t.id as tenant_id, d.name, array(select s.id from caudal.series s where s.device_id = d.id) as series
from caudal.raw_watch w join caudal.device d on d.id = w.device_id join caudal.tenant t on t.id = d.tenant_id
where w.until > now() order by w.until desc limit $1
"""  # noqa: E501
_KEEP = """
insert into caudal.raw_message(tenant_id, device_id, topic, payload, size, received)
select d.tenant_id, d.id, m.topic, m.payload, m.size, to_timestamp(m.us / 1e6)
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::int[], $5::int8[])
  with ordinality as m(device, topic, payload, size, us, place)
join caudal.device d on d.id = m.device order by m.place
"""
_TRIM = """
delete from caudal.raw_message m using (
  select id from (select id, row_number() over (partition by device_id
                                                order by received desc, id desc) as place
                  from caudal.raw_message where device_id = any($1::bigint[])) ranked
  where place > $2) old
where m.id = old.id
"""


class RawMessage(msgspec.Struct, frozen=True):
    """A message as it came; `payload` is cut at PAYLOAD_MAX, `size` is what it was (bytes)."""

    topic: str
    payload: bytes
    size: int
    received: datetime


class Tap:
    """In ingest: copies what is committed of watched devices."""

    def __init__(self, pool: asyncpg.Pool[Any], *, pause: float = 0.2, reread: float = 30.0) -> None:
        self._pool = pool
        self._pause = pause
        self._reread = reread
        self._pattern: re.Pattern[bytes] | None = None
        self._by_series: dict[int, int] = {}
        self._by_name: dict[tuple[int, str], int] = {}
        self._stale = asyncio.Event()
        # The newest ones win: who looks wants to see what comes now.
        self._seen: deque[tuple[int, str, bytes, int, int]] = deque(maxlen=_ROOM)
        self._some = asyncio.Event()

    def changed(self, _: str = "") -> None:
        """Who watches what may have changed."""
        self._stale.set()

    def committed(self, batch: Batch) -> None:
        """Copy what somebody watches. Costs nothing while nobody does."""
        if not self._by_name:
            return
        for entry in batch.entries:
            for device in self._devices(entry):
                message = entry.message
                self._seen.append(
                    (device, message.topic, bytes(message.payload[:PAYLOAD_MAX]), len(message.payload),
                     message.received)
                )  # fmt: skip
        if self._seen:
            self._some.set()

    def _devices(self, entry: Entry) -> set[int]:
        found: set[int | None] = set()
        if entry.device_name is not None:
            found.add(self._by_name.get((entry.tenant_id, entry.device_name)))
        if self._pattern is not None and entry.rows:
            numbers = {_series.unpack(raw)[0] for raw in self._pattern.findall(entry.rows)}
            found |= {self._by_series.get(number) for number in numbers}
        return {device for device in found if device is not None}

    async def watch(self) -> None:
        """Keep what is watched up to date, for ever."""
        while True:
            self._stale.clear()
            try:
                await self.read()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("cannot read whose messages are watched", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), self._reread)

    async def read(self) -> None:
        """Read once who is watched."""
        rows = await self._pool.fetch(_WATCHED, MAX_DEVICES)
        pairs = [(number, row["device_id"]) for row in rows for number in row["series"]][:MAX_SERIES]
        ids = [re.escape(_series.pack(number)) for number, _ in pairs]
        self._pattern = re.compile(_HEAD + b"(" + b"|".join(ids) + b")", re.DOTALL) if ids else None
        self._by_series = dict(pairs)
        self._by_name = {(row["tenant_id"], row["name"]): row["device_id"] for row in rows}

    async def keep(self) -> None:
        """Write what was copied, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.write()
            await asyncio.sleep(self._pause)

    async def write(self) -> None:
        """Write it once. What cannot be written is gone: it is a courtesy, the samples are stored."""
        seen = list(self._seen)
        self._seen.clear()
        if not seen:
            return
        # Text of PostgreSQL holds no NUL; a topic with one was refused long before.
        columns = [list(column) for column in zip(*seen, strict=True)]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_KEEP, *columns)
                await connection.execute(_TRIM, sorted(set(columns[0])), KEPT)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("watched messages could not be kept", error=repr(error))


async def ask(connection: Any, device_id: int) -> None:
    """Have the device's messages copied from now on, for LEASE_SECONDS. In a tenant's writing transaction."""
    await connection.execute("select caudal.watch_raw($1, $2)", device_id, LEASE_SECONDS)


async def newest(connection: Any, device_id: int) -> list[RawMessage]:
    """The newest messages that were copied of a device, the newest first."""
    rows = await connection.fetch(
        "select topic, payload, size, received from caudal.raw_message where device_id = $1::bigint"
        " and received > now() - interval '1 day' order by received desc, id desc limit $2",
        device_id, KEPT,
    )  # fmt: skip
    return [RawMessage(**row) for row in rows]
