"""`senml`: a JSON array of SenML records (RFC 8428), with the rules for Khomp gateways. Source: the contract.

The device is the base name in force (the topic's device where there is none), the point is the record's own
name. Facts (`model`, `firmware`, …) describe the device. A probe wired to a gateway, known by its address of
12 or 16 hex digits, is a device of its own, and its point is named by the unit; so is that of a record which
has no name but the base name. A sum (`s`) is a point of its own, `{point}_sum`, in the unit times seconds.
"""

import re
from decimal import Decimal
from typing import Any, Final

from caudal.telemetry.fields import (
    Context,
    Kind,
    Missing,
    PartError,
    Reading,
    as_name,
    as_num,
    as_text,
    as_unit,
    kind_of,
    show,
)
from caudal.telemetry.model import TEXT_MAX, Decoded, Match, RefusedError
from caudal.telemetry.timestamps import SECOND, TimestampError, checked, from_unix

NAME = "senml"
VERSION: Final = 10
"""The version of SenML that RFC 8428 is; a record that asks for a later one cannot be understood."""

_BASES: Final = frozenset({"bn", "bt", "bu", "bv", "bs", "bver"})
_KNOWN: Final = _BASES | {"n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"}
_VALUES: Final[dict[str, Kind]] = {"v": "num", "vs": "text", "vb": "bool", "vd": "text"}
_RESOLVED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*", re.ASCII)
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}", re.ASCII)
_RELATIVE: Final = 2**28
"""Seconds below this count from now, the rest from 1970 (RFC 8428, 4.5.3)."""

_FACTS: Final = frozenset({"model", "gateway", "version", "firmware", "hardware", "serial"})
_PROBE: Final = re.compile(r"(?:[0-9A-Fa-f]{12}|[0-9A-Fa-f]{16})", re.ASCII)
_CHANNELS: Final = frozenset({"A", "B", "C", "C1", "C2"})
_MEASURES: Final = {"Cel": "temp", "%RH": "humid", "count": "count"}
_UNITS: Final = {"Cel": "celsius", "%RH": "percent_rh"}


def recognises(doc: object) -> Match:
    """An array whose first record has a field of SenML."""
    if isinstance(doc, list) and doc and isinstance(doc[0], dict) and not _KNOWN.isdisjoint(doc[0]):
        return Match.KEYS
    return Match.NO


def decode(doc: object, context: Context) -> Decoded:
    reading = Reading(NAME, context)
    base = _Base()
    for index, record in enumerate(reading.list_at(doc, "")):
        if not isinstance(record, dict) or _KNOWN.isdisjoint(record):
            what = "has no field of SenML" if isinstance(record, dict) else f"is {kind_of(record)}, no object"
            reading.fault("schema", f"record {index} {what}", f"/{index}", record)
            continue
        base.take(record, index)
        if not _BASES.issuperset(_KNOWN.intersection(record)):
            _record(reading, record, index, base)
    return reading.done()


class _Base:
    """The base fields in force: each record may set some, for itself and all that follow."""

    def __init__(self) -> None:
        self.name: str = ""
        self.time: int | float = 0
        self.unit: str | None = None
        self.value: int | float | None = None
        self.sum: int | float | None = None

    def take(self, record: dict[str, Any], index: int) -> None:
        """A base field that cannot be read refuses the pack: all that follows would rest on it."""
        for key in record:
            if key.endswith("_"):
                raise RefusedError(
                    "schema", f"record {index}: {show(key)} must be understood and is not", f"/{index}"
                )
        for key in ("bver", "bn", "bt", "bu", "bv", "bs"):
            if key not in record:
                continue
            try:
                self._set(key, record[key])
            except PartError as bad:
                reason = bad.reason
                if reason == "value":
                    reason = "timestamp" if key == "bt" else "schema"
                raise RefusedError(
                    reason, f"record {index}: {key} {bad.sentence}", f"/{index}/{key}"
                ) from None

    def _set(self, key: str, value: object) -> None:
        match key:
            case "bver":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= VERSION:
                    raise PartError("schema", f"is {show(value)}; versions up to {VERSION} are known")
            case "bn":
                # An empty base name takes the base name back.
                self.name = "" if value == "" else as_name(value)
            case "bt":
                self.time = _number(value)
            case "bu":
                self.unit = as_unit(value)
            case "bv":
                self.value = _number(value)
            case "bs":
                self.sum = _number(value)


def _number(value: object) -> int | float:
    """A finite number as it came: an int stays one, since Unix times are exact."""
    number = as_num(value)
    return value if isinstance(value, int) else number


def _record(reading: Reading, record: dict[str, Any], index: int, base: _Base) -> None:
    key = "n"
    try:
        own = as_name(record["n"]) if "n" in record else ""
        if not _RESOLVED.fullmatch(base.name + own):
            raise PartError("schema", f"resolves to {show(base.name + own)}, which is no SenML name")
        key = "u"
        sent = base.unit if record.get("u") is None else as_unit(record["u"])
        key = "v"
        value_key = _value_key(record, base)
        if own in _FACTS:
            fact = record.get(value_key, base.value) if value_key else record.get("s")
            reading.describe(base.name or None, own, fact, f"/{index}")
            return
        key = "n"
        device, point = _place(base.name, own, sent)
        key = "t"
        ts = _time(base.time, record.get("t"), reading.context.now)
        qual = reading.quality(ts, naive=False)
        if value_key:
            key = value_key
            value = _value(key, record.get(key, Missing), base)
            reading.typed(device, point, ts, _VALUES[key], value, _UNITS.get(sent or "", sent), qual)
        if "s" in record or (base.sum is not None and value_key in ("v", None)):
            key = "s"
            total = _added(base.sum, _number(record["s"]) if "s" in record else None)
            unit = as_unit(f"{sent}.s") if sent else "s"
            reading.typed(device, as_name(f"{point}_sum"), ts, "num", total, unit, qual)
    except PartError as bad:
        reading.lost(bad, f"record {index}: {key}", f"/{index}/{key}", record)


def _value_key(record: dict[str, Any], base: _Base) -> str | None:
    """Which value field a record has: one; `v` when only the base value stands for it; none beside a sum."""
    present = [key for key in _VALUES if key in record]
    if len(present) > 1:
        raise PartError("schema", f"is one value too many: the record has {' and '.join(present)}")
    if present:
        return present[0]
    if base.value is not None:
        return "v"
    if "s" in record or base.sum is not None:
        return None
    raise PartError("value", "is missing, and so are vs, vb, vd and s")


def _place(base: str, own: str, unit: str | None) -> tuple[str | None, str]:
    """(device, point) of a record."""
    if not own or _PROBE.fullmatch(own):
        if unit is None:
            raise PartError("schema", "names a device and no point, and there is no unit to name it by")
        return own or base, _MEASURES.get(unit, unit)
    device = base or None
    if own in _CHANNELS and unit is not None:
        return device, f"{own}_{_MEASURES.get(unit, unit)}"
    return device, own


def _value(key: str, value: object, base: _Base) -> object:
    if key == "v":
        return _added(base.value, None if value is Missing else _number(value))
    if key == "vd":
        _check_data(value)
    return value


def _added(base: float | None, value: float | None) -> float:
    """Base and value in decimal, since 20.1 + 0.3 in floats is no number that the device meant."""
    if base is None or value is None:
        return as_num(value if base is None else base)
    if isinstance(base, int) and isinstance(value, int):
        return as_num(base + value)
    return as_num(float(Decimal(repr(base)) + Decimal(repr(value))))


def _check_data(value: object) -> None:
    """Binary data travels as base64url, by rights without padding, and is kept in that form."""
    text = as_text(value, TEXT_MAX, "value")
    if not _BASE64URL.fullmatch(text) or len(text.rstrip("=")) % 4 == 1:
        raise PartError("value", "is no base64url text")


def _time(base: float, own: object, now: int) -> int:
    """Base time and time, absolute or counted from when we received the pack; microseconds."""
    if own is not None and (isinstance(own, bool) or not isinstance(own, int | float)):
        raise PartError("timestamp", f"is {kind_of(own)}, and must be seconds")
    try:
        total = from_unix(base) + (from_unix(own) if own is not None else 0)
        return checked(total if total >= _RELATIVE * SECOND else now + total)
    except TimestampError as error:
        raise PartError("timestamp", f"with bt makes a time that {error}") from None
