"""Dials that were replaced: what the old one showed at the end and the new one at the beginning.

Without it a drop is taken for a restart from zero, and a new dial that shows more than the old one for
consumption. With it the step over the replacement is what the old dial still counted and the new one since.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound

LIMIT = 1e290
NOTE_MAX = 500


class ReplacementIn(msgspec.Struct, forbid_unknown_fields=True):
    """`at` is when the new dial began. Both readings are in the series' unit; `final_reading` is null where
    nobody read the old dial: then its last sample is taken."""

    at: datetime
    final_reading: float | None = None
    start_reading: float = 0.0
    note: str = ""


class Replacement(msgspec.Struct, frozen=True):
    """One replacement as it stands."""

    id: int
    point_id: int
    at: datetime
    final_reading: float | None
    start_reading: float
    note: str
    created_by: str
    created_at: datetime


_COLUMNS = "id, series_id as point_id, at, final_reading, start_reading, note, created_by, created_at"


async def find(connection: Any, point: int) -> list[Replacement]:
    """All of a point's, oldest first. Raises NotFound."""
    await _kind(connection, point)
    rows = await connection.fetch(
        f"select {_COLUMNS} from caudal.replacement where series_id = $1::bigint order by at", point
    )
    return [Replacement(**row) for row in rows]


async def create(connection: Any, point: int, given: ReplacementIn, *, by: str) -> Replacement:
    """Note one. Raises NotFound, InvalidInput for what contradicts the readings around it, Conflict."""
    if await _kind(connection, point) != "counter":
        raise InvalidInput("Only a counter has a dial that is replaced; say first that this point is one.")
    _check(given)
    around = await connection.fetchrow("select * from caudal.readings_around($1, $2)", point, given.at)
    before, after = around["before"], around["after"]
    if given.final_reading is not None and _fell(before, given.final_reading):
        raise InvalidInput(
            f"final_reading: the dial showed {before:g} before that; at the end it cannot have shown less."
        )
    if _fell(given.start_reading, after):
        raise InvalidInput(
            f"start_reading: the first reading after that is {after:g}; the new dial cannot have begun above."
        )
    try:
        row = await connection.fetchrow(
            "insert into caudal.replacement"
            " (tenant_id, series_id, at, final_reading, start_reading, note, created_by)"
            f" values (caudal.current_tenant(), $1, $2, $3, $4, $5, $6) returning {_COLUMNS}",
            point, given.at, given.final_reading, given.start_reading, given.note, by,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict("at: a replacement of this point at that instant is noted already.") from error
    except asyncpg.InvalidParameterValueError as error:
        raise InvalidInput(f"at: {error.args[0]}.") from error
    return Replacement(**row)


async def delete(connection: Any, point: int, number: int) -> None:
    """Take one back. Raises NotFound."""
    gone = await connection.fetchval(
        "delete from caudal.replacement where id = $1::bigint and series_id = $2::bigint returning id",
        number, point,
    )  # fmt: skip
    if gone is None:
        raise NotFound("There is no such replacement.")


async def _kind(connection: Any, point: int) -> str:
    kind: str | None = await connection.fetchval(
        "select kind from caudal.series where id = $1::bigint", point
    )
    if kind is None:
        raise NotFound("There is no such point.")
    return kind


def _fell(before: float | None, now: float | None) -> bool:
    # As caudal.is_reset has it: within 0.1% it is jitter.
    return before is not None and now is not None and before - now > 0.001 * abs(before)


def _check(given: ReplacementIn) -> None:
    if given.at.tzinfo is None:
        raise InvalidInput("at: give the instant with its offset, as 2026-01-31T14:30:00-03:00.")
    if given.at.year < 1971 or given.at > datetime.now(UTC) + timedelta(days=1):
        raise InvalidInput("at: give an instant between 1971 and now.")
    for name in ("final_reading", "start_reading"):
        value = getattr(given, name)
        if value is not None and not (math.isfinite(value) and abs(value) < LIMIT):
            raise InvalidInput(f"{name}: give a number.")
    if len(given.note) > NOTE_MAX or "\0" in given.note:
        raise InvalidInput(f"note: at most {NOTE_MAX} characters, none of them NUL.")
