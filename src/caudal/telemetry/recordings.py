"""Recorded data as the messages of a device that publishes it. Pure: it reads lines and gives messages.

A recording is CSV with a header: a column of times and one or more of numbers. What is empty or no number
was not measured, and gives no point.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec

from caudal.core.errors import InvalidInput

TIME_COLUMNS = ("timestamp", "date", "time", "datetime", "ts")


class Recorded(msgspec.Struct, frozen=True):
    """One row: when it was measured, and its numbers by column."""

    at: datetime
    values: dict[str, float]


def read(lines: Iterable[str], zone: ZoneInfo, *, time_column: str | None = None) -> Iterator[Recorded]:
    """The rows of a recording; times without an offset are local time of `zone`.

    An hour that the clocks repeat is told apart by order, so far as the recording is in order: the second
    time round is the later one. An hour that they skip did not exist; such a time is read by the offset
    that was valid before. Raises InvalidInput that names the line.
    """
    reader = csv.DictReader(_text(lines))
    try:
        yield from _rows(reader, zone, time_column)
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num + 1} is no CSV: {error}.") from None


def _text(lines: Iterable[str]) -> Iterator[str]:
    number = 0
    try:
        for line in lines:
            number += 1
            yield line
    except UnicodeDecodeError:
        raise InvalidInput(
            f"After line {number} there is something that is no UTF-8 text. A recording is CSV with a header."
        ) from None


def _rows(reader: csv.DictReader[str], zone: ZoneInfo, time_column: str | None) -> Iterator[Recorded]:
    names = reader.fieldnames or []
    column = time_column or next((name for name in names if name.strip().lower() in TIME_COLUMNS), None)
    if column is None or column not in names:
        raise InvalidInput(
            f"No column of times among {', '.join(names)[:200] or 'none'}; name it with --time-column."
        )
    before: datetime | None = None
    for row in reader:
        text = row[column] or ""
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise InvalidInput(
                f"Line {reader.line_num}: {text!r:.60} in {column} is no ISO 8601 time."
            ) from None
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone)
            # Compared as instants: two of one zone are otherwise compared by the clock on the wall.
            if before is not None and at.timestamp() <= before.timestamp():
                again = at.replace(fold=1)
                at = again if again.timestamp() > before.timestamp() else at
        before = at
        values = {}
        for name in names:
            number = _number(row[name]) if name != column else None
            if number is not None:
                values[name] = number
        yield Recorded(at, values)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def messages(rows: Iterable[Recorded], topic: str) -> Iterator[tuple[str, bytes]]:
    """Each row as a v1 message on `topic`."""
    for row in rows:
        points = [{"name": name, "t": "num", "v": value} for name, value in row.values.items()]
        body = {"schema": "v1", "ts": row.at.isoformat(), "points": points}
        yield topic, json.dumps(body).encode()


def pauses(rows: Iterable[Recorded], speed: float) -> list[float]:
    """Seconds to wait before each row when time runs `speed` times as fast; never less than none."""
    instants = [row.at.timestamp() for row in rows]
    return [0.0, *(max(0.0, (later - earlier) / speed) for earlier, later in pairwise(instants))]
