"""Reading fields with care: what every format shares.

`Reading` is one message being taken apart. It checks names, units, values and times in one place, so that a
format says only where things stand in its payload, and a bad part becomes a Fault without taking the others.
"""

import functools
import json
import math
from datetime import tzinfo
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from caudal.telemetry.model import (
    GOOD,
    NAME_MAX,
    SUSPECT,
    TEXT_MAX,
    UNIT_MAX,
    Decoded,
    Fault,
    Limits,
    Reason,
    RefusedError,
    Sample,
)
from caudal.telemetry.timestamps import TimestampError, from_iso, from_unix
from caudal.telemetry.topics import Route

Kind: TypeAlias = Literal["num", "float", "bool", "enum", "text"]
Missing: Final = msgspec.UNSET
"""Stands for a key that is not there; `doc.get(key, Missing)`."""

_SHOWN = 60
_PART_MAX = 4096


class PartError(Exception):
    """One field is wrong; `sentence` completes "<pointer's field> …"."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


def show(value: object) -> str:
    """A value for a sentence: JSON in ASCII, cut short; safe in any log, terminal or text column."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def kind_of(value: object) -> str:
    """The JSON name of a value's type, for a sentence."""
    match value:
        case None:
            return "null"
        case bool():
            return "a bool"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "missing"


def as_text(value: object, longest: int, reason: Reason = "schema") -> str:
    """Text that a database can hold: no NUL, no lone surrogate, no longer than `longest` characters."""
    if not isinstance(value, str):
        raise PartError(
            reason, "is missing" if value is Missing else f"is {kind_of(value)}, and must be text"
        )
    if len(value) > longest:
        raise PartError("too_large", f"has {len(value)} characters; {longest} are allowed")
    if "\0" in value:
        raise PartError("value", "holds a NUL character, which the database cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PartError("value", "holds half of a UTF-16 pair, which is no character") from None
    return value


def as_name(value: object) -> str:
    name = as_text(value, NAME_MAX)
    if not name:
        raise PartError("schema", "is empty, and a name cannot be")
    return name


def as_unit(value: object) -> str | None:
    """A unit; absent, null and empty are all none."""
    if value is None or value is Missing:
        return None
    return as_text(value, UNIT_MAX) or None


def as_num(value: object) -> float:
    """A finite JSON number as the nearest float; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PartError(
            "value", "is missing" if value is Missing else f"is {kind_of(value)}, and must be a number"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PartError("value", f"is {show(value)}, beyond what a double can hold")
    return number


def as_bit(value: object) -> bool:
    """A digital input: 0, 1, false or true."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    raise PartError("value", "is missing" if value is Missing else f"is {show(value)}, and must be 0 or 1")


def storable(value: Any) -> bool:
    """Whether a jsonb column takes it: no NUL, no lone surrogate, no infinity, at any depth."""
    match value:
        case str():
            return "\0" not in value and (value.isascii() or value.encode(errors="replace").decode() == value)
        case float():
            return math.isfinite(value)
        case list():
            return all(map(storable, value))
        case dict():
            return all(storable(k) and storable(v) for k, v in value.items())
    return True


def as_json(value: object, longest: int) -> bytes:
    """JSON for a jsonb column, no more than `longest` bytes of it."""
    if not storable(value):
        raise PartError(
            "value", "holds a NUL, half a UTF-16 pair or an infinite number, which cannot be stored"
        )
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > longest:
        raise PartError("too_large", f"has {len(data)} bytes; {longest} are allowed")
    return data


@functools.lru_cache(512)
def raw_meta(raw: bytes, longest: int) -> bytes | None:
    """A `meta` object as JSON in one form; None when it is no object or cannot be stored.

    Cached, since a device sends the same one with every message; callers bound `raw`, and so it.
    """
    try:
        value = msgspec.json.decode(raw)
        return as_json(value, longest) if isinstance(value, dict) else None
    except (PartError, ValueError, RecursionError):
        return None


class Context(msgspec.Struct, frozen=True):
    """What a format may know beside the payload."""

    route: Route
    zone: tzinfo | None
    """The site's time zone."""
    now: int
    """When we received it, microseconds."""
    horizon: int
    """A clock beyond this is suspect: `now` and the allowed skew."""
    limits: Limits


class Reading:
    """One message being taken apart: gathers samples, faults and metadata."""

    def __init__(self, format_: str, context: Context) -> None:
        self.format = format_
        self.context = context
        self.samples: list[Sample] = []
        self.faults: list[Fault] = []
        self.meta: bytes | None = None
        self.device_meta: dict[str | None, dict[str, object]] = {}

    # The whole message stands or falls with these; they raise RefusedError.

    def list_at(self, value: object, pointer: str) -> list[Any]:
        field = pointer[1:] or "the array"
        if not isinstance(value, list):
            kind = "is missing" if value is Missing else f"is {kind_of(value)}, and must be a list"
            raise RefusedError("schema", f"{field} {kind}", pointer)
        most = self.context.limits.items
        if len(value) > most:
            raise RefusedError("too_large", f"{field} has {len(value)} items; {most} are allowed", pointer)
        return value

    def name_at(self, value: object, pointer: str) -> str:
        try:
            return as_name(value)
        except PartError as bad:
            raise RefusedError(bad.reason, f"{pointer[1:]} {bad.sentence}", pointer) from None

    def iso_at(self, value: object, pointer: str) -> tuple[int, int]:
        """An ISO 8601 field as (microseconds, quality)."""
        field = pointer[1:]
        if value is Missing or value is None:
            raise RefusedError("schema", f"{field} is {'null' if value is None else 'missing'}", pointer)
        if not isinstance(value, str):
            raise RefusedError(
                "timestamp", f"{field} is {kind_of(value)}, and must be an ISO 8601 text", pointer
            )
        try:
            us, naive = from_iso(value, self.context.zone)
        except TimestampError as error:
            raise RefusedError("timestamp", f"{field} {show(value)} {error}", pointer) from None
        return us, self.quality(us, naive)

    def unix_at(self, value: object, pointer: str) -> tuple[int, int]:
        """A Unix time in seconds as (microseconds, quality)."""
        field = pointer[1:]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError("timestamp", f"{field} is {kind_of(value)}, and must be Unix seconds", pointer)
        try:
            us = from_unix(value)
        except TimestampError as error:
            raise RefusedError("timestamp", f"{field} {show(value)} {error}", pointer) from None
        return us, self.quality(us, naive=False)

    def quality(self, us: int, naive: bool) -> int:
        return SUSPECT if naive or us > self.context.horizon else GOOD

    # The rest takes or loses one part.

    def fault(self, reason: Reason, sentence: str, pointer: str, part: object = Missing) -> None:
        data = None if part is Missing else json.dumps(part).encode()
        if data is not None and len(data) > _PART_MAX:
            data = None
        self.faults.append(Fault(reason, sentence, pointer, data))

    def lost(self, bad: PartError, field: str, pointer: str, part: object = Missing) -> None:
        """A PartError field of one part."""
        self.fault(bad.reason, f"{field} {bad.sentence}", pointer, part)

    def num(self, point: str, value: object, unit: str | None, ts: int, qual: int, pointer: str) -> None:
        """A number of a field with a fixed meaning; absent is no sample, no number a fault."""
        if value is Missing:
            return
        try:
            self.samples.append((None, point, ts, as_num(value), None, None, unit, qual))
        except PartError as bad:
            self.lost(bad, pointer[1:], pointer, value)

    def bit(self, value: object, pointer: str) -> bool | None:
        """A digital field; absent is None, and what is neither 0 nor 1 is a fault and None."""
        if value is Missing:
            return None
        try:
            return as_bit(value)
        except PartError as bad:
            self.lost(bad, pointer[1:], pointer, value)
            return None

    def text(self, point: str, value: str, ts: int, qual: int) -> None:
        """A text of our own making."""
        self.samples.append((None, point, ts, None, None, value, None, qual))

    def flag(self, point: str, value: bool, ts: int, qual: int) -> None:
        self.samples.append((None, point, ts, None, value, None, None, qual))

    def typed(
        self, device: str | None, point: str, ts: int, kind: Kind, value: object, unit: str | None, qual: int
    ) -> None:
        """A value of a declared kind; raises PartError, whose sentence completes "v …"."""
        num: float | None = None
        flag: bool | None = None
        text: str | None = None
        if kind == "num" or kind == "float":
            num = as_num(value)
        elif kind == "bool":
            if not isinstance(value, bool):
                raise PartError("value", f"is {kind_of(value)}, and must be a bool")
            flag = value
        else:
            text = as_text(value, TEXT_MAX, "value")
        self.samples.append((device, point, ts, num, flag, text, unit, qual))

    def describe(self, device: str | None, key: str, value: object, pointer: str) -> None:
        """A fact about a device; one that cannot be stored is a fault."""
        try:
            as_json([key, value], self.context.limits.meta_bytes)
        except PartError as bad:
            self.lost(bad, pointer[1:], pointer, value)
        else:
            self.device_meta.setdefault(device, {})[key] = value

    def describe_point(self, device: str | None, point: str, facts: dict[str, object], pointer: str) -> None:
        """Facts about a point; they stand with those of its device, under `points`."""
        try:
            as_json([point, facts], self.context.limits.meta_bytes)
        except PartError as bad:
            self.lost(bad, pointer[1:], pointer, facts)
        else:
            points = self.device_meta.setdefault(device, {}).setdefault("points", {})
            cast("dict[str, object]", points)[point] = facts

    def done(self) -> Decoded:
        return Decoded(self.format, self.samples, tuple(self.faults), self.meta, self.device_meta or None)
