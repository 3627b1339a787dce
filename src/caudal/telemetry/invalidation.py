"""What a writer of samples owes the rollups: a mark, in its own transaction, for every hour that is already
materialised and that it adds to.

A writer calls `edge` once in each transaction, before or after it stores, and `invalidate` only when
something it stores is older than the threshold. Live samples are never older, so they cost the one call. The
call holds threshold and epoch still until the transaction ends; who skips it can lose an update.

A mark that is committed holds for the rest of its epoch: `Marks` remembers those of a connection, so that a
fleet which replays a month leaves one for each hour and epoch, and not one for each sample.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from struct import Struct
from typing import Any, NamedTuple, Protocol

from caudal.telemetry.rows import EPOCH_SHIFT, NO_META, identity, split

HOUR_US = 3_600_000_000
MOST = 50_000


class Connection(Protocol):
    """The part of an asyncpg connection that is needed here."""

    async def fetchval(self, query: str, *args: Any) -> Any: ...


class Edge(NamedTuple):
    """Samples with a `ts` before `threshold` (microseconds since 1970) need a mark, once in an `epoch`."""

    threshold: int
    epoch: int


async def edge(connection: Connection) -> Edge:
    """Threshold and epoch, held still until the transaction ends.

    Call it inside the storing transaction (READ COMMITTED); it takes a shared lock that goes with it, and
    waits only for the instant in which the refresher moves one of them.
    """
    return Edge(*await connection.fetchval("select caudal.rollup_edge()"))


class Marks:
    """What one connection has marked in the present epoch, at most `most` hours; beyond that it forgets, and
    marks again. A new connection begins with none: its server may not have the last ones."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._epoch = -1
        self._known: set[int] = set()

    def missing(self, epoch: int, keys: set[int]) -> set[int]:
        """Those of `keys` that need a mark in `epoch`."""
        return keys - self._known if epoch == self._epoch else keys

    def committed(self, epoch: int, keys: Collection[int]) -> None:
        """The transaction that marked `keys` in `epoch` is committed; not before."""
        if epoch < self._epoch:
            return
        if epoch > self._epoch or len(self._known) + len(keys) > self._most:
            self._epoch, self._known = epoch, set()
        self._known.update(keys)


def key(series: int, ts: int) -> int:
    """One number for a series and the hour of `ts` (microseconds since 1970)."""
    return (ts // HOUR_US << 32) | series


# Numbers without metadata, with a unit and without: what nearly every message consists of. The lengths of
# fields are read too: where all are as they should be, the next row begins where we think.
_UNIT = Struct(">2x4xi4x2xi2x4xq4x8xi8x12s")
_PLAIN = Struct(">2x4xi4x2xi4xq4x8xi8x12s")
_SHAPES = {_UNIT.size: (_UNIT, 2), _PLAIN.size: (_PLAIN, -1)}


def late_keys(rows: bytes, count: int, threshold: int) -> set[int]:
    """`key` of every one of these `count` COPY rows that lies before `threshold`."""
    form, unit = _SHAPES.get(len(rows) // count, (None, 0))
    found: set[int] = set()
    if form is not None and len(rows) == form.size * count:
        shifted, last, hour = threshold - EPOCH_SHIFT, None, 0
        for series, has, ts, length, tail in form.iter_unpack(rows):
            if has != unit or length != 8 or tail != NO_META:
                break
            if ts < shifted:
                if ts != last:
                    last, hour = ts, (ts + EPOCH_SHIFT) // HOUR_US << 32
                found.add(hour | series)
        else:
            return found
    return {key(*one) for one in map(identity, split(rows)) if one[1] < threshold}


async def invalidate(connection: Connection, late: Iterable[int]) -> None:
    """Mark hours by their `key`, in the same transaction. One row, whatever their number.

    Repetitions and hours that were not late after all do no harm.
    """
    keys = set(late)
    if keys:
        await connection.fetchval(
            "select caudal.invalidate($1::int[], $2::int[])",
            array("i", (one & 0xFFFFFFFF for one in keys)), array("i", (one >> 32 for one in keys)),
        )  # fmt: skip
