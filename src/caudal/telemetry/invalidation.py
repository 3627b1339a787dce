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
from collections.abc import Callable
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


Hours = dict[int, set[int]]
"""By hour since 1970, the series in question."""


class Marks:
    """What one connection has marked in the present epoch, at most `most` hours of series; beyond that it
    forgets, and marks again. A new connection begins with none: its server may not have the last ones."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._epoch = -1
        self._known: Hours = {}
        self._size = 0

    def missing(self, epoch: int, late: Hours) -> Hours:
        """Those of `late` that need a mark in `epoch`."""
        if epoch != self._epoch:
            return late
        none: set[int] = set()
        known = self._known
        return {hour: left for hour, ids in late.items() if (left := ids - known.get(hour, none))}

    def committed(self, epoch: int, marked: Hours) -> None:
        """The transaction that marked these in `epoch` is committed; not before."""
        if epoch < self._epoch:
            return
        size = sum(map(len, marked.values()))
        if epoch > self._epoch or self._size + size > self._most:
            self._epoch, self._known, self._size = epoch, {}, 0
        self._size += size
        for hour, ids in marked.items():
            self._known.setdefault(hour, set()).update(ids)


# Of rows made by `pack_numbers`, one after the other, the series' numbers.
_SERIES: dict[int, Callable[[bytes], tuple[int, ...]]] = {}
# Numbers without metadata, with a unit and without. The lengths of fields are read too: where all are as they
# should be, the next row begins where we think.
_UNIT = Struct(">2x4xi4x2xi2x4xq4x8xi8x12s")
_PLAIN = Struct(">2x4xi4x2xi4xq4x8xi8x12s")
_SHAPES = {_UNIT.size: (_UNIT, 2), _PLAIN.size: (_PLAIN, -1)}


def add_packed(found: Hours, rows: bytes, count: int, ts: int) -> None:
    """Add to `found` the hours of a late message whose rows `pack_numbers` made, all of the instant `ts`."""
    unpack = _SERIES.get(count)
    if unpack is None:
        if len(_SERIES) > 1000:
            _SERIES.clear()
        unpack = _SERIES[count] = Struct(">" + f"6xi{_UNIT.size - 10}x" * count).unpack
    found.setdefault(ts // HOUR_US, set()).update(unpack(rows))


def add_late(found: Hours, rows: bytes, count: int, threshold: int) -> None:
    """Add to `found` the hours of those of these COPY rows, of any kind, that lie before `threshold`."""
    form, unit = _SHAPES.get(len(rows) // count, (None, 0))
    late: list[tuple[int, int]] = []
    if form is not None and len(rows) == form.size * count:
        for series, has, ts, length, tail in form.iter_unpack(rows):
            if has != unit or length != 8 or tail != NO_META:
                break
            late.append((series, ts + EPOCH_SHIFT))
    if len(late) < count:
        late = [identity(row) for row in split(rows)]
    for series, ts in late:
        if ts < threshold:
            found.setdefault(ts // HOUR_US, set()).add(series)


async def invalidate(connection: Connection, late: Hours) -> None:
    """Mark hours, in the same transaction. One row, whatever their number.

    Repetitions and hours that were not late after all do no harm.
    """
    if late:
        series, hours = array("i"), array("i")
        for hour, ids in late.items():
            series.extend(ids)
            hours.extend([hour] * len(ids))
        await connection.fetchval("select caudal.invalidate($1::int[], $2::int[])", series, hours)
