"""Samples as rows of PostgreSQL's binary COPY, made by hand because this is where the time goes.

Format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS. A row is a count of
fields (int16) and for each its length (int32, -1 for null) and its bytes, all big-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct, unpack_from

COLUMNS = ("series", "qual", "unit", "ts", "received", "v_num", "v_bool", "v_text", "meta")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

# PostgreSQL counts microseconds from 2000-01-01, we from 1970-01-01.
EPOCH_SHIFT = 946_684_800_000_000

_HEAD = Struct(">hiiihih").pack
_HEAD_NO_UNIT = Struct(">hiiihi").pack
_TIMES = Struct(">iqiqi").pack
_LENGTH = Struct(">i").pack
pack_double = Struct(">d").pack
_NUMBER = Struct(">22siqiqid12s").pack

HEAD_SIZE = 22  # with a unit
PACKED_SIZE = 70
"""A number with a unit and no metadata."""
_PACKERS: dict[int, Callable[..., bytes]] = {}

NULL = b"\xff\xff\xff\xff"
NO_META = NULL * 3
"""What follows a number in a message without metadata."""


def head(series: int, qual: int, unit: int | None) -> bytes:
    """The first three columns; the same for nearly every sample of a series, so worth keeping."""
    if unit is None:
        return _HEAD_NO_UNIT(9, 4, series, 2, qual, -1)
    return _HEAD(9, 4, series, 2, qual, 2, unit)


def times(ts: int, received: int) -> bytes:
    """The two instants (microseconds since 1970) and the length of the number that follows."""
    return _TIMES(8, ts - EPOCH_SHIFT, 8, received - EPOCH_SHIFT, 8)


def tail(meta: bytes | None) -> bytes:
    """What follows a number: no boolean, no text, and the message's metadata."""
    return NO_META if meta is None else NULL + NULL + _jsonb(meta)


def pack_numbers(parts: Sequence[bytes | float], count: int, *, bare: bool = False) -> bytes:
    """`count` rows at once, from head, times, number and NO_META of each in turn.

    One call in C for the whole message: the usual one is ten numbers with their units. `bare` says that some
    have none, and so a shorter head.
    """
    if bare:
        return b"".join([part if type(part) is bytes else pack_double(part) for part in parts])
    pack = _PACKERS.get(count)
    if pack is None:
        if len(_PACKERS) > 1000:
            _PACKERS.clear()
        pack = _PACKERS[count] = Struct(">" + f"{HEAD_SIZE}s28sd12s" * count).pack
    return pack(*parts)


def pack_number(first: bytes, ts: int, received: int, value: float) -> bytes:
    """One row, of a number with its unit and without metadata; instants in microseconds since 1970."""
    return _NUMBER(first, 8, ts - EPOCH_SHIFT, 8, received - EPOCH_SHIFT, 8, value, NO_META)


def other(flag: bool | None, text: str | None, meta: bytes | None) -> bytes:
    """What follows the instants of a sample that is no number, in place of the number's length."""
    if flag is not None:
        value = NULL + (b"\0\0\0\1\1" if flag else b"\0\0\0\1\0") + NULL
    else:
        raw = (text or "").encode()
        value = NULL + NULL + _LENGTH(len(raw)) + raw
    return value + (NULL if meta is None else _jsonb(meta))


def _jsonb(meta: bytes) -> bytes:
    return _LENGTH(len(meta) + 1) + b"\1" + meta


def split(rows: bytes) -> Iterator[bytes]:
    """The single rows of a run of them, for the batch that has one the database refuses."""
    at = 0
    while at < len(rows):
        start = at
        (fields,) = unpack_from(">h", rows, at)
        at += 2
        for _ in range(fields):
            (length,) = unpack_from(">i", rows, at)
            at += 4 + max(length, 0)
        yield rows[start:at]


def identity(row: bytes) -> tuple[int, int]:
    """Series and instant (microseconds since 1970) of a row."""
    (series,) = unpack_from(">i", row, 6)
    # A unit is two bytes where there is one; the instant and its length follow.
    (unit_length,) = unpack_from(">i", row, 16)
    (ts,) = unpack_from(">q", row, 24 + max(unit_length, 0))
    return series, ts + EPOCH_SHIFT
