"""`v1`: `{"schema":"v1", ts, points:[{name, t, v, u?, qual?}], meta?}`. Source: the telemetry contract.

`t` is num, float, bool, enum or text, num when absent. `qual` (or `q`) of 1 or 2 is the device's own word
that a value is suspect or bad; any other value of it is ignored, as unknown keys are. The hot path: most of
what arrives is this.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from caudal.telemetry.fields import (
    Context,
    Kind,
    Missing,
    PartError,
    Reading,
    as_json,
    as_name,
    as_unit,
    raw_meta,
    show,
)
from caudal.telemetry.model import (
    BAD,
    GOOD,
    NAME_MAX,
    SUSPECT,
    TEXT_MAX,
    UNIT_MAX,
    Decoded,
    Match,
    Sample,
)
from caudal.telemetry.rows import NO_META, pack_number, pack_numbers, times
from caudal.telemetry.timestamps import EPOCH, MAX_US, MIN_US

NAME = "v1"
_KINDS: Final[tuple[Kind, ...]] = ("num", "float", "bool", "enum", "text")
_BACKSLASH: Final = 0x5C
_NUL: Final = b"\\u0000"
_OPEN, _CLOSE = b"{}"
QUICK_MAX: Final = 1000
"""Points in a message that `numbers` takes."""


class _Point(msgspec.Struct, gc=False):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]
    v: float | bool | Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
    t: Literal["num", "float", "bool", "enum", "text"] = "num"
    u: Annotated[str, msgspec.Meta(min_length=1, max_length=UNIT_MAX)] | None = None
    qual: Literal[0, 1, 2] = 0
    q: Literal[0, 1, 2] = 0


class _Message(msgspec.Struct, gc=False):
    schema: Literal["v1"]
    ts: Annotated[datetime, msgspec.Meta(tz=True)]
    points: list[_Point]
    meta: msgspec.Raw = msgspec.Raw()


_decode: Final = msgspec.json.Decoder(_Message).decode


def fast(payload: bytes, context: Context) -> Decoded | None:
    """A message without anything unusual; None for every other, which `decode` then looks at closely."""
    # One byte is found ten times as fast as six, and few payloads escape anything.
    if _BACKSLASH in payload and _NUL in payload:
        return None
    try:
        if not payload.isascii():
            payload.decode()
        message = _decode(payload)
    except (ValueError, RecursionError):
        return None
    delta = message.ts - EPOCH
    ts = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    points = message.points
    limits = context.limits
    if not MIN_US <= ts <= MAX_US or len(points) > limits.items:
        return None
    clock = SUSPECT if ts > context.horizon else GOOD
    samples: list[Sample] = []
    append = samples.append
    for point in points:
        value = point.v
        kind = point.t
        qual = point.qual or point.q or clock
        if type(value) is float and (kind == "num" or kind == "float"):
            append((None, point.name, ts, value, None, None, point.u, qual))
        elif type(value) is bool and kind == "bool":
            append((None, point.name, ts, None, value, None, point.u, qual))
        elif type(value) is str and (kind == "enum" or kind == "text"):
            append((None, point.name, ts, None, None, value, point.u, qual))
        else:
            return None
    raw = bytes(message.meta)
    if not raw or raw == b"null":
        return Decoded("v1", samples)
    meta = raw_meta(raw, limits.meta_bytes) if len(raw) <= limits.meta_bytes else None
    return None if meta is None else Decoded("v1", samples, (), meta)


class _Number(msgspec.Struct, gc=False):
    name: str
    v: float
    t: Literal["num", "float"] = "num"
    u: str | None = None
    qual: Literal[0] = 0
    q: Literal[0] = 0


class Numbers(msgspec.Struct, gc=False):
    """A message of good numbers alone."""

    schema: Literal["v1"]
    ts: Annotated[datetime, msgspec.Meta(tz=True)]
    points: tuple[_Number, ...]
    meta: None = None


Heads: TypeAlias = Mapping[str, tuple[str | None, bytes]]
"""The usual unit of each known point, and the first columns of its rows."""
_UNKNOWN: Final = (None, b"")

_decode_numbers: Final = msgspec.json.Decoder(Numbers).decode
_decode_many: Final = msgspec.json.Decoder(Numbers).decode_lines


def _numbers(payload: bytes) -> Numbers | None:
    if not payload.isascii():
        return None
    try:
        return _decode_numbers(payload)
    except (ValueError, RecursionError):
        return None


def numbers(payloads: Sequence[bytes]) -> Sequence[Numbers | None]:
    """Each payload read as a message of good numbers alone; None for every other.

    They are read in one call as lines, which costs less, where that cannot take a part of one for a part of
    another. Each begins with a brace and ends with one; behind such an end none may begin within an object
    or a list, nor within a string, as there is a line feed between them. So each holds a whole document or
    more; and as many are found as there are payloads.
    """
    if len(payloads) > 1:
        try:
            if not [each for each in payloads if each[0] != _OPEN or each[-1] != _CLOSE]:
                joined = b"\n".join(payloads)
                if joined.isascii():
                    found = _decode_many(joined)
                    if len(found) == len(payloads):
                        return found
        except (ValueError, RecursionError, IndexError):
            pass  # one of them is something else
    return [_numbers(payload) for payload in payloads]


def rows_of(message: Numbers, heads: Heads, received: int, horizon: int) -> tuple[bytes, int, int] | None:
    """Straight to rows, how many, and their instant: good numbers of known points in their usual units.

    `received` and `horizon` as in `Context`.
    None for every other message. Names and units are compared with known ones and need no other check.
    """
    delta = message.ts - EPOCH
    ts = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    points = message.points
    count = len(points)
    if not MIN_US <= ts <= horizon or not 0 < count <= QUICK_MAX:
        return None
    known = heads.get
    if count == 1:
        point = points[0]
        unit = point.u
        found = known(point.name)
        if found is None or found[0] != unit:
            return None
        if unit is not None:
            return pack_number(found[1], ts, received, point.v), 1, ts
    middle = times(ts, received)
    parts: list[bytes | float] = []
    bare = False
    for point in points:
        unit = point.u
        found = known(point.name)
        if found is None or found[0] != unit:
            return None
        if unit is None:
            bare = True
        parts += (found[1], middle, point.v, NO_META)
    return pack_numbers(parts, count, bare=bare), count, ts


def single_rows(
    messages: Sequence[Numbers], heads: Sequence[Heads], received: int, horizon: int
) -> tuple[list[bytes], list[int]] | None:
    """A row and its instant for each message, as `rows_of`, all at once, which costs less than one by one.

    None where one of them is not a single number of a known point in its unit.
    """
    try:
        points = [point for (point,) in [message.points for message in messages]]
    except ValueError:
        return None
    instants = [
        (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        for delta in [message.ts - EPOCH for message in messages]
    ]
    if min(instants) < MIN_US or max(instants) > horizon:
        return None
    found = [known.get(point.name, _UNKNOWN) for known, point in zip(heads, points, strict=True)]
    units = [unit for unit, _ in found]
    if None in units or units != [point.u for point in points]:
        return None
    return [
        pack_number(first, ts, received, point.v)
        for (_, first), ts, point in zip(found, instants, points, strict=True)
    ], instants


def recognises(doc: object) -> Match:
    if isinstance(doc, dict) and doc.get("schema") == "v1":
        return Match.NAMED if "points" in doc else Match.MEANT
    return Match.NO


def decode(doc: object, context: Context) -> Decoded:
    assert isinstance(doc, dict)
    reading = Reading(NAME, context)
    points = reading.list_at(doc.get("points", Missing), "/points")
    ts, clock = reading.iso_at(doc.get("ts", Missing), "/ts")
    for index, point in enumerate(points):
        _point(reading, point, f"/points/{index}", f"points[{index}]", ts, clock)
    _meta(reading, doc.get("meta"))
    return reading.done()


def _point(reading: Reading, point: object, pointer: str, where: str, ts: int, clock: int) -> None:
    if not isinstance(point, dict):
        reading.fault("schema", f"{where} is no object", pointer, point)
        return
    key = "name"
    try:
        name = as_name(point.get("name", Missing))
        key = "t"
        kind = _kind(point.get("t"))
        key = "u"
        unit = as_unit(point.get("u"))
        key = "v"
        value = point.get("v", Missing)
        if value is Missing:
            raise PartError("value", "is missing")
        reading.typed(None, name, ts, kind, value, unit, _quality(point, clock))
    except PartError as bad:
        what = f"{where}.{key}" + (f" (of {show(name)}, declared {kind})" if key == "v" else "")
        reading.lost(bad, what, f"{pointer}/{key}", point)


def _kind(value: object) -> Kind:
    """Absent and null are num; no other word is taken for one of the five."""
    if value is None:
        return "num"
    for kind in _KINDS:
        if value == kind:
            return kind
    raise PartError("schema", f"is {show(value)}, and must be one of {', '.join(_KINDS)}")


def _quality(point: dict[str, object], clock: int) -> int:
    for key in ("qual", "q"):
        word = point.get(key)
        if isinstance(word, int) and not isinstance(word, bool) and word in (SUSPECT, BAD):
            return word
    return clock


def _meta(reading: Reading, meta: object) -> None:
    """Metadata that cannot be kept costs the message its metadata, not its samples."""
    if meta is None:
        return
    try:
        if not isinstance(meta, dict):
            raise PartError("schema", "is no object")
        reading.meta = as_json(meta, reading.context.limits.meta_bytes)
    except PartError as bad:
        reading.lost(bad, "meta", "/meta", meta)
