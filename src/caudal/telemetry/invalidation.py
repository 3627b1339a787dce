"""What a writer of samples owes the rollups: a mark, in its own transaction, for every hour that is already
materialised and that it adds to.

A writer calls `threshold` once in each transaction, before or after it stores, and `invalidate` only when
something it stores is older. Live samples are never older, so they cost the one call. The call holds the
threshold still until the transaction ends; who skips it can lose an update when the threshold moves between.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

HOUR_US = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


class Connection(Protocol):
    """The part of an asyncpg connection that is needed here."""

    async def fetchval(self, query: str, *args: Any) -> Any: ...


async def threshold(connection: Connection) -> int:
    """The threshold in microseconds since 1970: samples with an earlier `ts` need `invalidate`.

    Call it inside the storing transaction (READ COMMITTED); it takes a shared lock that goes with it, and
    waits only for the instant in which the refresher moves the threshold.
    """
    found: datetime = await connection.fetchval("select caudal.rollup_threshold()")
    return (found - _EPOCH) // _US


async def invalidate(connection: Connection, late: Iterable[tuple[int, int]]) -> None:
    """Mark the hours of `late`, (series, `ts` in microseconds since 1970) pairs, in the same transaction.

    Repetitions and pairs that were not late after all do no harm. One row, whatever their number.
    """
    pairs = {(series, ts // HOUR_US) for series, ts in late}
    if pairs:
        series, hours = zip(*pairs, strict=True)
        await connection.fetchval(
            "select caudal.invalidate($1::int[], $2::int[])", array("i", series), array("i", hours)
        )
