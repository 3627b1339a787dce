"""`sensors`: `{device_id, timestamp, sensors:[{sensor_id, value, unit?, type?, labels?}]}`.

Source: the telemetry contract. The value's JSON type is its kind; `type` says what is measured (temperature)
and is, like `labels`, a fact about the point.
"""

from caudal.telemetry.fields import (
    Context,
    Kind,
    Missing,
    PartError,
    Reading,
    as_name,
    as_unit,
    kind_of,
    show,
)
from caudal.telemetry.model import Decoded, Match

NAME = "sensors"


def recognises(doc: object) -> Match:
    return Match.KEYS if isinstance(doc, dict) and "sensors" in doc else Match.NO


def decode(doc: object, context: Context) -> Decoded:
    assert isinstance(doc, dict)
    reading = Reading(NAME, context)
    sensors = reading.list_at(doc["sensors"], "/sensors")
    device = reading.name_at(doc.get("device_id", Missing), "/device_id")
    ts, qual = reading.iso_at(doc.get("timestamp", Missing), "/timestamp")
    for index, sensor in enumerate(sensors):
        _sensor(reading, sensor, index, device, ts, qual)
    return reading.done()


def _sensor(reading: Reading, sensor: object, index: int, device: str, ts: int, qual: int) -> None:
    where, pointer = f"sensors[{index}]", f"/sensors/{index}"
    if not isinstance(sensor, dict):
        reading.fault("schema", f"{where} is {kind_of(sensor)}, and must be an object", pointer, sensor)
        return
    key = "sensor_id"
    try:
        point = as_name(sensor.get(key, Missing))
        key = "unit"
        unit = as_unit(sensor.get(key))
        key = "value"
        value = sensor.get(key, Missing)
        reading.typed(device, point, ts, _kind(value), value, unit, qual)
    except PartError as bad:
        of = f" (of {show(point)})" if key != "sensor_id" else ""
        reading.lost(bad, f"{where}.{key}{of}", f"{pointer}/{key}", sensor)
        return
    facts = {k: sensor[k] for k in ("type", "labels") if sensor.get(k) is not None}
    if facts:
        reading.describe_point(device, point, facts, pointer)


def _kind(value: object) -> Kind:
    match value:
        case bool():
            return "bool"
        case str():
            return "text"
        case int() | float():
            return "num"
    raise PartError(
        "value",
        "is missing" if value is Missing else f"is {kind_of(value)}, and must be a number, bool or text",
    )
